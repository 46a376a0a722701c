//! Judging a batch.

use std::collections::BTreeSet;

use super::lives::History;
use super::operation::{Answer, Based, Batch, Change, Operation, Refusal};
use super::overlay::Overlay;
use super::records::Records;
use crate::ids::{NodeId, OperationId, ServerId, Version};
use crate::node::{Content, Kind, Metadata, Node, Place, Versions};

/// Ids of missing chunks that are remembered with an answer.
const MISSING_KEPT: usize = 16;

/// Applies what a batch may change and answers every operation, in order.
///
/// The caller holds a transaction around the call and commits it before it sends the answers.
///
/// # Errors
/// Only those of the records; then nothing of the batch may be kept.
pub fn apply<R: Records>(records: &mut R, batch: &Batch) -> Result<Vec<Answer>, R::Error> {
    if records.epoch(batch.server)? != batch.epoch {
        return Ok(vec![Answer::Refused(Refusal::Fenced); batch.operations.len()]);
    }
    let present = records.share()?.incarnation;
    if present != batch.incarnation {
        let common = History { lives: records.lives()?, present }.common_with(batch.incarnation);
        return answers_of_before(records, batch, common.unwrap_or_default());
    }
    let mut answers = Vec::with_capacity(batch.operations.len());
    // Nodes whose creation failed in this batch: what builds on them is skipped, not refused.
    let mut failed = BTreeSet::new();
    for group in batch.operations.chunk_by(|a, b| a.group.is_some() && a.group == b.group) {
        let judged = match repeated(records, group)? {
            Some(answers) => answers,
            None => apply_group(records, batch.server, group, &failed)?,
        };
        for (operation, answer) in group.iter().zip(&judged) {
            if !matches!(answer, Answer::Applied(_)) && matches!(operation.change, Change::Create { .. }) {
                failed.insert(operation.change.node());
            }
        }
        answers.extend(judged);
    }
    Ok(answers)
}

/// A batch that was made in another life: what was judged in it already is answered as it was, as far as the common past goes.
/// For everything else its author has to read on first.
fn answers_of_before<R: Records>(records: &R, batch: &Batch, common: Version) -> Result<Vec<Answer>, R::Error> {
    let is_common = |answer: &Answer| match answer {
        Answer::Applied(version) => *version <= common,
        Answer::Conflict(node) => node.versions.last <= common,
        _ => false,
    };
    let mut answers = Vec::with_capacity(batch.operations.len());
    for group in batch.operations.chunk_by(|a, b| a.group.is_some() && a.group == b.group) {
        let known = repeated(records, group)?.filter(|answers| answers.iter().all(is_common));
        answers.extend(known.unwrap_or_else(|| vec![Answer::Refused(Refusal::Incarnation); group.len()]));
    }
    Ok(answers)
}

/// The answers of a group that was judged before. Ids never come back with another change.
fn repeated<R: Records>(records: &R, group: &[Operation]) -> Result<Option<Vec<Answer>>, R::Error> {
    let mut answers = Vec::with_capacity(group.len());
    let mut known = false;
    for operation in group {
        answers.push(match records.answered(operation.id)? {
            Some((digest, answer)) if digest == operation.digest() => {
                known = true;
                answer
            }
            Some(_) => {
                known = true;
                Answer::Refused(Refusal::ReusedOperation)
            }
            None => Answer::Skipped,
        });
    }
    Ok(known.then_some(answers))
}

fn apply_group<R: Records>(
    records: &mut R,
    author: ServerId,
    group: &[Operation],
    failed: &BTreeSet<NodeId>,
) -> Result<Vec<Answer>, R::Error> {
    let mut answers = vec![Answer::Skipped; group.len()];
    let mut overlay = Overlay::new(records, author)?;
    let verdict = judge_group(&mut overlay, group, failed, &mut answers)?;
    let (share, changed) = (overlay.share, overlay.changed);
    match verdict {
        None => {
            records.set_share(share)?;
            let mut nodes: Vec<Node> = changed.into_values().collect();
            nodes.sort_by_key(|node| node.versions.last);
            for node in nodes {
                records.put(node)?;
            }
        }
        Some((at, answer)) => {
            answers.fill(Answer::Skipped);
            answers[at] = committed_state(records, answer)?;
        }
    }
    // Also that content was missing or room: a request that was held up on its way must not be judged anew when its author
    // has long sent something else, under other ids.
    for (operation, answer) in group.iter().zip(&answers) {
        let short = shortened(answer);
        records.remember(operation.id, operation.digest(), short.as_ref().unwrap_or(answer))?;
    }
    Ok(answers)
}

/// A conflict was found among the group's tentative states; its author is told what the share really holds.
fn committed_state<R: Records>(records: &R, answer: Answer) -> Result<Answer, R::Error> {
    let Answer::Conflict(tentative) = &answer else { return Ok(answer) };
    // Two members of one group that want one name: neither is there, and nothing is known beyond that.
    Ok(records.node(tentative.id)?.map_or(Answer::Skipped, |node| Answer::Conflict(Box::new(node))))
}

/// Of much that is missing, some is remembered: whoever hears of it reads the file again anyway.
fn shortened(answer: &Answer) -> Option<Answer> {
    match answer {
        Answer::Missing(chunks) if chunks.len() > MISSING_KEPT => Some(Answer::Missing(chunks[..MISSING_KEPT].to_vec())),
        _ => None,
    }
}

type Verdict = Option<(usize, Answer)>;

/// Judges a group on the overlay; the first failure, with its position, is the verdict.
fn judge_group<R: Records>(
    overlay: &mut Overlay<'_, R>,
    group: &[Operation],
    failed: &BTreeSet<NodeId>,
    answers: &mut [Answer],
) -> Result<Verdict, R::Error> {
    let used_before = overlay.share.used;
    for (at, operation) in group.iter().enumerate() {
        let change = &operation.change;
        if failed.contains(&change.node()) || change.parent().is_some_and(|parent| failed.contains(&parent)) {
            return Ok(Some((at, Answer::Skipped)));
        }
        match judge(overlay, operation)? {
            Ok(version) => answers[at] = Answer::Applied(version),
            Err(answer) => return Ok(Some((at, answer))),
        }
        let share = overlay.share;
        if let Some(quota) = share.quota.filter(|&quota| share.used > quota && share.used > used_before) {
            let refusal = Refusal::Quota { quota, used: used_before, more: share.used - used_before };
            return Ok(Some((at, Answer::Refused(refusal))));
        }
    }
    // Names and cycles last, so that the members of a group may pass through each other.
    for (at, operation) in group.iter().enumerate() {
        if let Some(answer) = check_place(overlay, operation)? {
            return Ok(Some((at, answer)));
        }
    }
    Ok(None)
}

/// Whether a node that got a new place may stay there.
fn check_place<R: Records>(overlay: &Overlay<'_, R>, operation: &Operation) -> Result<Option<Answer>, R::Error> {
    if operation.change.parent().is_none() {
        return Ok(None);
    }
    let Some(node) = overlay.changed.get(&operation.change.node()).filter(|node| node.is_live()) else {
        return Ok(None);
    };
    let case = overlay.share.case;
    if let Some(holder) = overlay.holder(node.place.parent, &node.place.name.key(case), case, node.id)? {
        return Ok(Some(Answer::Conflict(Box::new(holder))));
    }
    if node.kind() == Kind::Directory && overlay.is_below(node.place.parent, node.id)? {
        return Ok(Some(Answer::Refused(Refusal::Cycle)));
    }
    Ok(None)
}

type Judged = Result<Version, Answer>;

fn judge<R: Records>(overlay: &mut Overlay<'_, R>, operation: &Operation) -> Result<Judged, R::Error> {
    let id = operation.id;
    match &operation.change {
        Change::Create { node, .. } => create(overlay, id, *node, &operation.change),
        Change::Update { node, metadata, content } => update(overlay, id, *node, metadata.as_ref(), content.as_ref()),
        Change::Move { node, place } => move_to(overlay, id, *node, place),
        Change::Delete { node, place, content } => delete(overlay, id, *node, *place, *content),
    }
}

fn refused(refusal: Refusal) -> Judged {
    Err(Answer::Refused(refusal))
}

fn conflict(node: Node) -> Judged {
    Err(Answer::Conflict(Box::new(node)))
}

/// Why a node cannot hang below `parent`, if it cannot.
fn parent_problem<R: Records>(overlay: &Overlay<'_, R>, parent: NodeId) -> Result<Option<Refusal>, R::Error> {
    if parent == NodeId::ROOT {
        return Ok(None);
    }
    Ok(match overlay.node(parent)? {
        Some(node) if node.deleted => Some(Refusal::NoParent),
        Some(node) if node.kind() != Kind::Directory => Some(Refusal::NotADirectory),
        Some(_) => None,
        None => Some(Refusal::NoParent),
    })
}

fn missing_content<R: Records>(overlay: &Overlay<'_, R>, content: &Content) -> Result<Option<Answer>, R::Error> {
    let Some(file) = content.file() else { return Ok(None) };
    let missing = overlay.records.missing(file.manifest)?;
    Ok((!missing.is_empty()).then_some(Answer::Missing(missing)))
}

fn create<R: Records>(
    overlay: &mut Overlay<'_, R>,
    operation: OperationId,
    id: NodeId,
    change: &Change,
) -> Result<Judged, R::Error> {
    let Change::Create { place, metadata, content, revives, conflict_of, .. } = change else {
        return Ok(refused(Refusal::NoNode));
    };
    let before = overlay.node(id)?;
    match (&before, *revives) {
        (None, None) => {}
        (Some(node), Some(base)) if node.deleted && node.versions.last == base => {
            if node.kind() != content.kind() {
                return Ok(refused(Refusal::Fixed));
            }
        }
        (Some(node), _) if node.is_live() && node.place == *place && node.metadata == *metadata && node.content == *content => {
            return Ok(Ok(node.versions.last));
        }
        (Some(node), _) => return Ok(conflict(node.clone())),
        (None, Some(_)) => return Ok(refused(Refusal::NoNode)),
    }
    if id == NodeId::ROOT || id == NodeId::PARKED {
        return Ok(refused(Refusal::Fixed));
    }
    if let Some(refusal) = parent_problem(overlay, place.parent)? {
        return Ok(refused(refusal));
    }
    if let Some(missing) = missing_content(overlay, content)? {
        return Ok(Err(missing));
    }
    let version = overlay.share.head.next();
    overlay.share.head = version;
    overlay.share.used += content.size();
    overlay.put(Node {
        id,
        place: place.clone(),
        metadata: metadata.clone(),
        content: content.clone(),
        versions: Versions { created: version, place: version, metadata: version, content: version, last: version },
        deleted: false,
        conflict_of: *conflict_of,
        author: overlay.author,
        operation,
    });
    Ok(Ok(version))
}

fn live<R: Records>(overlay: &Overlay<'_, R>, id: NodeId) -> Result<Result<Node, Answer>, R::Error> {
    Ok(match overlay.node(id)? {
        Some(node) if node.is_live() => Ok(node),
        Some(node) => Err(Answer::Conflict(Box::new(node))),
        None => Err(Answer::Refused(Refusal::NoNode)),
    })
}

fn update<R: Records>(
    overlay: &mut Overlay<'_, R>,
    operation: OperationId,
    id: NodeId,
    metadata: Option<&Based<Metadata>>,
    content: Option<&Based<Content>>,
) -> Result<Judged, R::Error> {
    let mut node = match live(overlay, id)? {
        Ok(node) => node,
        Err(answer) => return Ok(Err(answer)),
    };
    // A facet that already is what is asked for needs no base: equal changes merge silently.
    let metadata = metadata.filter(|new| new.value != node.metadata);
    let content = content.filter(|new| new.value != node.content);
    let stale = metadata.is_some_and(|new| new.base != node.versions.metadata)
        || content.is_some_and(|new| new.base != node.versions.content);
    if stale {
        return Ok(conflict(node));
    }
    if metadata.is_none() && content.is_none() {
        return Ok(Ok(node.versions.last));
    }
    let version = overlay.share.head.next();
    if let Some(new) = content {
        if new.value.kind() != node.kind() {
            return Ok(refused(Refusal::Fixed));
        }
        if let Some(missing) = missing_content(overlay, &new.value)? {
            return Ok(Err(missing));
        }
        overlay.share.used = overlay.share.used - node.content.size() + new.value.size();
        node.content = new.value.clone();
        node.versions.content = version;
    }
    if let Some(new) = metadata {
        node.metadata = new.value.clone();
        node.versions.metadata = version;
    }
    Ok(Ok(finish(overlay, node, operation, version)))
}

fn move_to<R: Records>(
    overlay: &mut Overlay<'_, R>,
    operation: OperationId,
    id: NodeId,
    place: &Based<Place>,
) -> Result<Judged, R::Error> {
    if id == NodeId::ROOT {
        return Ok(refused(Refusal::Fixed));
    }
    let mut node = match live(overlay, id)? {
        Ok(node) => node,
        Err(answer) => return Ok(Err(answer)),
    };
    if node.place == place.value {
        return Ok(Ok(node.versions.last));
    }
    if place.base != node.versions.place {
        return Ok(conflict(node));
    }
    if let Some(refusal) = parent_problem(overlay, place.value.parent)? {
        return Ok(refused(refusal));
    }
    let version = overlay.share.head.next();
    node.place = place.value.clone();
    node.versions.place = version;
    node.conflict_of = None;
    Ok(Ok(finish(overlay, node, operation, version)))
}

fn delete<R: Records>(
    overlay: &mut Overlay<'_, R>,
    operation: OperationId,
    id: NodeId,
    place: Version,
    content: Version,
) -> Result<Judged, R::Error> {
    if id == NodeId::ROOT {
        return Ok(refused(Refusal::Fixed));
    }
    let Some(mut node) = overlay.node(id)? else { return Ok(refused(Refusal::NoNode)) };
    if node.deleted {
        return Ok(Ok(node.versions.last));
    }
    if place != node.versions.place || content != node.versions.content {
        return Ok(conflict(node));
    }
    if node.kind() == Kind::Directory && overlay.has_children(id)? {
        return Ok(refused(Refusal::NotEmpty));
    }
    let version = overlay.share.head.next();
    overlay.share.used -= node.content.size();
    node.deleted = true;
    Ok(Ok(finish(overlay, node, operation, version)))
}

fn finish<R: Records>(overlay: &mut Overlay<'_, R>, mut node: Node, operation: OperationId, version: Version) -> Version {
    overlay.share.head = version;
    node.versions.last = version;
    node.operation = operation;
    node.author = overlay.author;
    overlay.put(node);
    version
}
