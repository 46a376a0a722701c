//! `isotherm server`: the servers that ever connected.
//!
//! It asks the service and shows the answer; a server that still has endpoints is not deleted.
//!
//! **Invariant:** ages are told by the service's clock alone.

use isotherm_api::Client;
use isotherm_api::management::{Server, Status};

use crate::args::ServerCommand;
use crate::failure::Failure;
use crate::output::{Answer, NOTHING, Table, text};
use crate::size;

pub(crate) async fn run(client: &Client, command: ServerCommand) -> Result<Answer, Failure> {
    match command {
        ServerCommand::List(format) => {
            // The status, not the plain list, because only it tells the time of the service.
            let Status { servers, now_ms, .. } = client.status().await?;
            Ok(Answer::new(format.json, &servers, || list(&servers, now_ms)))
        }
        ServerCommand::Delete { name } => {
            client.delete_server(&name).await?;
            Ok(format!("Server {} is deleted; its name is free\n", text(&name)).into())
        }
    }
}

fn list(servers: &[Server], now_ms: u64) -> String {
    let mut table = Table::new(&["server", "state", "last heard of", "agent", "endpoints>"]);
    for server in servers {
        table.row(vec![
            server.name.clone(),
            if server.online { "online" } else { "offline" }.to_owned(),
            last_seen(server, now_ms),
            server.agent_version.as_deref().map_or_else(|| NOTHING.to_owned(), text),
            size::count(server.endpoints),
        ]);
    }
    if table.is_empty() { "No servers yet; start an agent with `isotherm agent run`\n".to_owned() } else { table.render() }
}

/// When a server was last heard of, for people.
pub(crate) fn last_seen(server: &Server, now_ms: u64) -> String {
    match server.last_seen_ms {
        Some(seen) => format!("{} ago", size::age(now_ms, seen)),
        None => "not since the service started".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use isotherm_core::ids::{Epoch, ServerId};

    use super::*;

    #[test]
    fn silent_servers_show() {
        let server = |name: &str, last_seen_ms: Option<u64>| Server {
            id: ServerId::default(),
            name: name.to_owned(),
            online: last_seen_ms.is_some(),
            last_seen_ms,
            epoch: Epoch(1),
            agent_version: None,
            endpoints: 2,
        };
        let expected = "\
server   state    last heard of                  agent  endpoints
detroit  online   2 s ago                        -              2
munich   offline  not since the service started  -              2
";
        assert_eq!(list(&[server("detroit", Some(1_000)), server("munich", None)], 3_000), expected);
    }
}
