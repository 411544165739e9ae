//! A pod as its node sees it: its process, its packets.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};

use super::context::Context;
use crate::command;

/// Longest name of a process that Linux keeps.
const LONGEST_NAME: usize = 15;

/// A pod.
#[derive(Debug)]
pub(super) struct RunningPod {
    /// Its address.
    pub(super) address: IpAddr,
    /// The number of its node.
    pub(super) node: u8,
}

impl RunningPod {
    /// The pod with this address.
    pub(super) fn at(address: IpAddr) -> Result<Self> {
        match address {
            // Node N has 10.244.N.0/24.
            IpAddr::V4(v4) => Ok(Self {
                address,
                node: v4.octets()[2],
            }),
            IpAddr::V6(_) => bail!("the pods' network is IPv4, yet the address is {address}"),
        }
    }

    /// The control plane's: its pods are in the network of their node.
    pub(super) fn of_control_plane(context: &Context) -> Self {
        Self {
            address: context.cluster.node_ip(1),
            node: 1,
        }
    }

    /// The process of `program` in it, as the node numbers it: the one whose network has its address.
    pub(super) async fn process(&self, context: &Context, program: &str) -> Result<String> {
        let name: String = program.chars().take(LONGEST_NAME).collect();
        let pids = self.run(context, &["pgrep", "-x", &name]).await?;
        let address = format!("-- {}\n", self.address);
        for pid in pids.split_whitespace() {
            let routes = format!("/proc/{pid}/net/fib_trie");
            // One that has ended meanwhile is not the one.
            let routes = self.run(context, &["cat", &routes]).await.unwrap_or_default();
            if routes.contains(&address) {
                return Ok(pid.to_owned());
            }
        }
        bail!(
            "node-{}: none of the processes {pids:?} has the address {}",
            self.node,
            self.address
        )
    }

    /// Ends `program` in it without a warning.
    pub(super) async fn kill(&self, context: &Context, program: &str) -> Result<()> {
        let pid = self.process(context, program).await?;
        self.run(context, &["kill", "-KILL", &pid]).await?;
        Ok(())
    }

    /// Runs a command on its node.
    pub(super) async fn run<S: AsRef<str>>(&self, context: &Context, line: &[S]) -> Result<String> {
        let mut words = line.iter().map(AsRef::as_ref);
        let program = words.next().context("no program")?;
        let mut command = context.cluster.node_command(self.node, program)?;
        command.args(words);
        command::output(command).await
    }
}
