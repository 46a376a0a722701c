//! Metadata between the file system and the share: accounts by name, attributes that travel, and what a file system
//! cannot hold.
//!
//! **Invariant:** what a file system cannot hold is left out and shown as left out; whatever it can hold is exact.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use isotherm_core::ids::Timestamp;
use isotherm_core::node::{Metadata, Principal, Xattrs};
use isotherm_gate::{ErrorKind, GateError, Inode, Kind, Stat};

use super::{Volume, acl, attributes};

/// With less room than this, in bytes, a failure for want of room says nothing about an attribute.
const ROOM: u64 = 4 << 20;

impl Volume {
    /// Mode, owner and attributes of an inode in the share's terms.
    pub(crate) fn read_metadata(&self, inode: &Inode, stat: &Stat) -> Result<Metadata, GateError> {
        let (user, group) = {
            let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            // Without the name service the numbers still travel.
            owners.owner_names(stat.uid, stat.gid).unwrap_or_default()
        };
        let xattrs = self.shared_attributes(inode.read_xattrs()?)?;
        Ok(Metadata {
            mode: if stat.kind == Kind::Symlink { 0 } else { stat.mode },
            user: Principal { id: stat.uid, name: user },
            group: Principal { id: stat.gid, name: group },
            born: stat.btime_ns.map(Timestamp),
            xattrs,
        })
    }

    /// Gives an inode mode, owner and attributes. What the file system does not know, or this process may not do, is
    /// left out.
    pub(crate) fn write_metadata(&self, inode: &Inode, wanted: &Metadata) -> Result<(), GateError> {
        let stat = inode.stat()?;
        let (uid, gid) = self.numbers(wanted);
        let present = self.shared_attributes(inode.read_xattrs()?)?;
        let absent = present.keys().filter(|name| !wanted.xattrs.contains_key(*name));
        let mut change = isotherm_gate::Metadata {
            mode: wanted.mode,
            uid,
            gid,
            set: self.local_attributes(changed_attributes(&wanted.xattrs, &present), inode.is_stub())?,
            remove: absent.cloned().collect(),
        };
        match inode.write_metadata(&change) {
            // Only root may give files away.
            Err(error) if error.kind() == ErrorKind::Denied && (stat.uid, stat.gid) != (uid, gid) => {
                (change.uid, change.gid) = (stat.uid, stat.gid);
                write_what_is_known(inode, change)
            }
            // On a full volume nothing has room: that passes, and is no reason to leave anything out.
            Err(error) if error.kind() == ErrorKind::NoSpaceForXattr && self.root.free_bytes()? < ROOM => Err(error),
            Err(error) if is_left_out(error.kind()) => write_what_is_known(inode, change),
            answer => answer,
        }
    }

    /// Attributes as the share has them.
    fn shared_attributes(&self, mut xattrs: Xattrs) -> Result<Xattrs, GateError> {
        if let Some(value) = xattrs.get_mut(attributes::DOSATTRIB) {
            *value = attributes::here(value);
        }
        for (_, value) in xattrs.iter_mut().filter(|(name, _)| acl::is_list(name)) {
            *value = acl::to_share(value, &mut self.owners.lock().unwrap_or_else(PoisonError::into_inner))?;
        }
        Ok(xattrs)
    }

    /// Attributes as this server's kernel takes them.
    fn local_attributes(&self, mut xattrs: Xattrs, is_stub: bool) -> Result<Xattrs, GateError> {
        if let Some(value) = xattrs.get_mut(attributes::DOSATTRIB).filter(|_| is_stub && self.shows_offline()) {
            *value = attributes::away(value);
        }
        for (_, value) in xattrs.iter_mut().filter(|(name, _)| acl::is_list(name)) {
            *value = acl::to_kernel(value, &mut self.owners.lock().unwrap_or_else(PoisonError::into_inner))?;
        }
        Ok(xattrs)
    }

    fn numbers(&self, wanted: &Metadata) -> (u32, u32) {
        let name = |principal: &Principal| principal.name.clone().unwrap_or_default();
        let (user, group) = (name(&wanted.user), name(&wanted.group));
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let (uid, gid) = owners.owner_ids(&user, &group).unwrap_or_default();
        (uid.unwrap_or(wanted.user.id), gid.unwrap_or(wanted.group.id))
    }
}

/// Attributes that travel and are not already what they should be.
fn changed_attributes(wanted: &Xattrs, present: &Xattrs) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let differs = |(name, value): &(&Vec<u8>, &Vec<u8>)| present.get(*name) != Some(*value);
    wanted.iter().filter(differs).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Failures of one attribute that concern no other: the file system, or this release, does not know it, or has no room
/// for it. What shows afterwards tells what is missing.
fn is_left_out(kind: ErrorKind) -> bool {
    use ErrorKind::{AclTooLarge, InvalidName, NoSpaceForXattr, Unsupported};
    matches!(kind, Unsupported | InvalidName | AclTooLarge | NoSpaceForXattr)
}

/// Attribute by attribute, after owner and mode.
fn write_what_is_known(inode: &Inode, mut change: isotherm_gate::Metadata) -> Result<(), GateError> {
    let attributes = std::mem::take(&mut change.set);
    inode.write_metadata(&change)?;
    change.remove.clear();
    let (acls, others): (Vec<_>, Vec<_>) = attributes.into_iter().partition(|(name, _)| name.starts_with(b"system."));
    for (name, value) in others.into_iter().chain(acls) {
        change.set = BTreeMap::from([(name, value)]);
        match inode.write_metadata(&change) {
            Err(error) if is_left_out(error.kind()) => {
                tracing::debug!(%error, "Attribute is left out");
            }
            answer => answer?,
        }
    }
    Ok(())
}
