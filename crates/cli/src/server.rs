//! `isotherm server`: the servers that ever connected.
//!
//! It asks the service and shows the answer: the servers with their limits. A server that still has endpoints is not deleted.
//!
//! **Invariant:** ages are told by the service's clock alone.

use isotherm_api::Client;
use isotherm_api::management::{Server, ServerChange, Status};
use isotherm_core::bandwidth::{InForce, Limit, Rate};

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
        ServerCommand::Set { name, limits, no_limits: _, format } => {
            let server = client.change_server(&name, &ServerChange { limits: Some(limits) }).await?;
            Ok(Answer::new(format.json, &server, || changed(&server)))
        }
        ServerCommand::Delete { name } => {
            client.delete_server(&name).await?;
            Ok(format!("Server {} is deleted; its name is free\n", text(&name)).into())
        }
    }
}

fn list(servers: &[Server], now_ms: u64) -> String {
    let mut table = Table::new(&["server", "state", "last heard of", "agent", "endpoints>", "limits"]);
    for server in servers {
        table.row(vec![
            server.name.clone(),
            if server.online { "online" } else { "offline" }.to_owned(),
            last_seen(server, now_ms),
            server.agent_version.as_deref().map_or_else(|| NOTHING.to_owned(), text),
            size::count(server.endpoints),
            shown(&server.limits),
        ]);
    }
    if table.is_empty() { "No servers yet; start an agent with `isotherm agent run`\n".to_owned() } else { table.render() }
}

fn changed(server: &Server) -> String {
    let name = text(&server.name);
    if server.limits.is_empty() {
        return format!("Server {name} has no limits\n");
    }
    format!("Server {name} has the limits: {}\n", shown(&server.limits))
}

/// Limits as they are set.
fn shown(limits: &[Limit]) -> String {
    let texts: Vec<String> = limits.iter().map(ToString::to_string).collect();
    if texts.is_empty() { NOTHING.to_owned() } else { texts.join(" ") }
}

/// What is in force at a server, for people; none where nothing is.
pub(crate) fn in_force(server: &Server) -> Option<String> {
    let rate = |rate: Rate| format!("{}/s", size::bytes(rate.bytes_per_s()));
    let InForce { up, down, demand } = server.in_force;
    let parts = [
        up.map(|up| format!("sends at most {}", rate(up))),
        down.map(|down| format!("gets at most {}", rate(down))),
        demand.map(|demand| format!("at most {} for those who wait", rate(demand))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("Limits are in force: server {} {}.", text(&server.name), parts.join(", ")))
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
    #![allow(clippy::unwrap_used)]
    use isotherm_core::ids::{Epoch, ServerId};

    use super::*;

    fn limit(text: &str) -> Limit {
        text.parse().unwrap()
    }

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
            limits: if name == "munich" { vec![limit("up=5MiB/s,mon-fri"), limit("down=20MiB/s,demand")] } else { Vec::new() },
            in_force: InForce::default(),
        };
        let expected = "\
server   state    last heard of                  agent  endpoints  limits
detroit  online   2 s ago                        -              2  -
munich   offline  not since the service started  -              2  up=5MiB/s,mon-fri down=20MiB/s,demand
";
        let mut munich = server("munich", None);
        assert_eq!(list(&[server("detroit", Some(1_000)), munich.clone()], 3_000), expected);
        assert_eq!(in_force(&munich), None);
        munich.in_force = InForce { up: Rate::new(5 << 20), down: Rate::new(20 << 20), demand: Rate::new(20 << 20) };
        let expected = "Limits are in force: server munich sends at most 5.0 MiB/s, gets at most 20.0 MiB/s, at most 20.0 MiB/s for those who wait.";
        assert_eq!(in_force(&munich).as_deref(), Some(expected));
    }
}
