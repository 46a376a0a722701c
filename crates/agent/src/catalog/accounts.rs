//! The last name that each account number of this server had, kept over restarts: after a boot the name service may be
//! away for a while and say that nobody has the number.

use std::collections::BTreeMap;
use std::path::Path;

use isotherm_gate::Account;
use rusqlite::params;

use super::{CatalogFailure, SqlCatalog, schema};

const USER: &str = "account:user:";
const GROUP: &str = "account:group:";

impl SqlCatalog {
    /// What [`Self::keep_names_beside`] kept.
    #[must_use]
    pub fn last_names(&self) -> BTreeMap<Account, String> {
        let sql = "SELECT key, value FROM fact WHERE key GLOB 'account:*'";
        let rows = self.many(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)));
        rows.into_iter().filter_map(|(key, name)| Some((account(&key)?, String::from_utf8(name).ok()?))).collect()
    }

    /// Keeps names of numbers durably, beside an engine that owns the catalog. Not while a transaction of it is open.
    ///
    /// # Errors
    /// None of them was kept.
    pub fn keep_names_beside(path: &Path, names: &[(Account, String)]) -> Result<(), CatalogFailure> {
        let sql = "INSERT INTO fact (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
        let keep = |mut connection: rusqlite::Connection| {
            let transaction = connection.transaction()?;
            for (account, name) in names {
                transaction.execute(sql, params![key(*account), name.as_bytes()])?;
            }
            transaction.commit()
        };
        schema::open_beside(path).and_then(keep).map_err(|error| schema::failure(path, &error))
    }
}

fn key(account: Account) -> String {
    match account {
        Account::User(id) => format!("{USER}{id}"),
        Account::Group(id) => format!("{GROUP}{id}"),
    }
}

fn account(key: &str) -> Option<Account> {
    let user = key.strip_prefix(USER).and_then(|id| Some(Account::User(id.parse().ok()?)));
    user.or_else(|| key.strip_prefix(GROUP).and_then(|id| Some(Account::Group(id.parse().ok()?))))
}
