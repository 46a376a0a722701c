//! Small databases beside a catalog, on which nothing rests: what they lose makes answers poorer and never wrong.
//!
//! **Invariant:** one that is damaged, or of another format, is begun anew.

use std::path::Path;

use rusqlite::Connection;

/// What makes a file one of a kind.
pub(super) struct Shape {
    /// Format of the file.
    pub(super) format: i64,
    /// Marks the file as one of this product.
    pub(super) application: i64,
    /// What makes its tables.
    pub(super) tables: &'static str,
    /// Most memory for cached pages, in KiB.
    pub(super) cache_kib: i64,
}

/// Opens the file at this path, which is made where there is none, and anew where it cannot be read. None where that cannot be either.
pub(super) fn open(path: &Path, shape: &Shape) -> Option<Connection> {
    let opened = connect(path, shape).or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "A record beside the catalogs is begun anew: what it held is forgotten");
        for end in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            // What is not there need not go.
            let _ = std::fs::remove_file(name);
        }
        connect(path, shape)
    });
    opened.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "A record beside the catalogs is not kept")).ok()
}

fn connect(path: &Path, shape: &Shape) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "cache_size", -shape.cache_kib)?;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (format, application) = (number("user_version")?, number("application_id")?);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A power cut may take the last minutes along.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    if (format, application) == (shape.format, shape.application) {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(rusqlite::Error::InvalidQuery);
        }
    } else if (format, application) == (0, 0) {
        connection.execute_batch(shape.tables)?;
        connection.pragma_update(None, "application_id", shape.application)?;
        connection.pragma_update(None, "user_version", shape.format)?;
    } else {
        return Err(rusqlite::Error::InvalidQuery);
    }
    Ok(connection)
}
