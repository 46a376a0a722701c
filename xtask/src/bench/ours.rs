//! Isotherm as one of the products that are compared.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::compare::Product;
use super::data;
use super::world::{SERVERS, World};

struct Isotherm(World);

/// Starts a service and two agents, whose endpoints are empty.
pub(super) fn start(binary: &Path, folder: &Path) -> Result<Box<dyn Product>> {
    let world = World::start(binary, folder)?;
    for server in SERVERS {
        world.join(server)?;
    }
    Ok(Box::new(Isotherm(world)))
}

impl Product for Isotherm {
    fn version(&self) -> Result<String> {
        Ok("this version; quiet time 0.5 s; by way of a service that keeps a copy of its own; not encrypted".to_owned())
    }

    fn folders(&self) -> [PathBuf; 2] {
        SERVERS.map(|server| self.0.site(server))
    }

    fn changes(&self) -> usize {
        20
    }

    fn settle(&mut self) -> Result<()> {
        self.0.synced()
    }

    /// What the service stored: the content that was sent, without the words around it.
    fn sent(&self) -> Result<u64> {
        data::bytes_below(&self.0.objects())
    }

    fn memory_kib(&self) -> Result<Option<u64>> {
        let mut sum = self.0.service.memory_kib()?.1;
        for agent in &self.0.agents {
            sum += agent.memory_kib()?.1;
        }
        Ok(Some(sum))
    }
}
