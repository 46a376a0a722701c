//! What SQLite's planner is told of the tables' sizes.
//!
//! Without numbers it takes a condition on the share for one that leaves few rows, and walks a share of millions for each
//! directory of it. Measured numbers would change plans while the service runs; these are those of a large group, whatever there
//! is: on small tables any plan will do.

use rusqlite::{Connection, params};

use crate::fault::Fault;

/// Table, index (a table without row numbers is its own), and: rows, and rows that are equal in the first column, in the first two, and
/// so on.
const SIZES: &[(&str, &str, &str)] = &[
    ("node", "node", "1000000 1000000 1"),
    ("node", "node_by_name", "1000000 1000000 100 1"),
    ("node", "node_by_version", "1000000 1000000 1"),
    ("node", "node_by_conflict", "1000 1000 1"),
    ("node", "node_by_old_name", "100000 100000 100 2"),
    ("revision", "revision", "1000000 1000000 5 1"),
    ("revision", "revision_by_name", "1000000 1000000 500 5"),
    ("revision", "revision_by_age", "1000000 1000000 100"),
    ("operation", "operation", "1000000 1000000 1"),
    ("chunk", "chunk", "1000000 1"),
    ("chunk", "chunk_by_pack", "1000000 500"),
    ("manifest", "manifest", "1000000 1"),
    ("manifest", "manifest_by_age", "1000000 500"),
    ("damage", "damage", "100 50 1"),
    ("damage", "damage_by_manifest", "100 2"),
];

/// Writes them where they are not the same, and has the planner look at them.
pub(super) fn tell(connection: &Connection) -> Result<(), Fault> {
    if are_told(connection)? {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    // The only way to make the table in which they are kept.
    transaction.execute_batch("ANALYZE meta; DELETE FROM sqlite_stat1;")?;
    let measured = "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat4'";
    if transaction.query_row(measured, [], |row| row.get::<_, i64>(0))? > 0 {
        transaction.execute("DELETE FROM sqlite_stat4", [])?;
    }
    for (table, index, sizes) in SIZES {
        transaction.execute("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?1, ?2, ?3)", params![table, index, sizes])?;
    }
    transaction.commit()?;
    connection.execute_batch("ANALYZE sqlite_schema")?;
    Ok(())
}

fn are_told(connection: &Connection) -> Result<bool, Fault> {
    let there =
        connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1'", [], |row| row.get::<_, i64>(0))?;
    if there == 0 {
        return Ok(false);
    }
    let mut query = connection.prepare("SELECT tbl, ifnull(idx, ''), stat FROM sqlite_stat1")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut told = rows.collect::<rusqlite::Result<Vec<(String, String, String)>>>()?;
    let mut wanted: Vec<_> =
        SIZES.iter().map(|(table, index, sizes)| ((*table).to_owned(), (*index).to_owned(), (*sizes).to_owned())).collect();
    told.sort();
    wanted.sort();
    Ok(told == wanted)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::schema;
    use super::*;

    /// Those that look at all there is, and have to: beginnings of their texts.
    const WALKS: &[&str] = &[
        // Audits, for tests and `service check`.
        "SELECT node.id, share.name FROM node JOIN share ON share.num = node.share WHERE node.deleted = 0 AND node.parent <> ?1",
        "SELECT manifest, data FROM node WHERE share = ?1 AND manifest IS NOT NULL",
        "SELECT manifest, data FROM revision WHERE share = ?1 AND manifest IS NOT NULL",
        // For what still refers to a group that goes; there is nothing by then.
        "DELETE FROM share WHERE num = ?1",
        // Once for tables of an earlier release.
        "SELECT revision.share, revision.id, last, data, insensitive FROM revision JOIN share",
    ];

    #[test]
    fn no_question_walks_a_whole_share() {
        let folder = tempfile::tempdir().unwrap();
        let connection = schema::open(&folder.path().join("records.sqlite")).unwrap();
        let (mut asked, mut wrong) = (0, Vec::new());
        for sql in statements(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/records")) {
            // Some belong to tests, with tables of their own, and some are made of pieces.
            let Ok(mut plan) = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")) else { continue };
            let rows = plan.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<rusqlite::Result<Vec<String>>>();
            asked += 1;
            let walks = |step: &String| {
                ["node", "revision", "operation"].iter().any(|table| step.starts_with(&format!("SEARCH {table} ")))
                    && step.ends_with("(share=?)")
            };
            if !WALKS.iter().any(|known| sql.starts_with(known)) && rows.unwrap().iter().any(walks) {
                wrong.push(sql);
            }
        }
        assert!(asked > 100, "only {asked} statements were found");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn they_are_told_once_and_again_when_somebody_measures() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("records.sqlite");
        let connection = schema::open(&file).unwrap();
        assert!(are_told(&connection).unwrap());
        connection.execute_batch("ANALYZE").unwrap();
        assert!(!are_told(&connection).unwrap());
        drop(connection);
        assert!(are_told(&schema::open(&file).unwrap()).unwrap());
    }

    /// All string literals below a folder that are statements.
    fn statements(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                found.extend(statements(&path));
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let literals = text.split('"').map(|piece| piece.split_whitespace().collect::<Vec<_>>().join(" "));
                let verbs = ["SELECT ", "WITH ", "UPDATE ", "DELETE ", "INSERT "];
                found.extend(literals.filter(|sql| verbs.iter().any(|verb| sql.starts_with(verb))));
            }
        }
        found
    }
}
