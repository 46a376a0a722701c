//! Connections for reading.
//!
//! They are made as needed and kept. They cannot write.
//!
//! **Invariant:** one piece of work sees one state of the database.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::schema;
use crate::fault::Fault;

/// Most reads at once; more would only fight for the same disk.
const READERS_MAX: usize = 8;

/// Connections that wait for work.
#[derive(Debug)]
pub(super) struct Readers {
    file: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Semaphore,
}

impl Readers {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), idle: Arc::default(), permits: Semaphore::new(READERS_MAX) }
    }

    pub(super) fn connect(&self) -> Result<Connection, Fault> {
        Ok(schema::open_to_read(&self.file)?)
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let _permit = self.permits.acquire().await.map_err(|_| Fault::stopping())?;
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let idle = Arc::clone(&self.idle);
        tokio::task::spawn_blocking(move || {
            let transaction = connection.unchecked_transaction()?;
            let value = work(&transaction)?;
            transaction.finish()?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            Ok(value)
        })
        .await?
    }
}
