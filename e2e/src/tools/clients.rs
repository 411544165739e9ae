//! kubectl and Helm alone, for a cluster of somebody else.

use std::path::PathBuf;

use anyhow::Result;

use super::{HELM, KUBERNETES, built};
use crate::host;
use crate::progress::Progress;

/// The programs that use a cluster which somebody else made.
#[derive(Clone, Debug)]
pub struct Clients {
    /// kubectl's path.
    pub kubectl: PathBuf,
    /// helm's path.
    pub helm: PathBuf,
}

impl Clients {
    /// Takes the machine's own programs, and builds what it has not.
    pub async fn prepare(progress: &Progress) -> Result<Self> {
        Ok(Self {
            kubectl: match host::find("kubectl") {
                Some(found) => found,
                None => built(&KUBERNETES, progress).await?.join("kubectl"),
            },
            helm: match host::find("helm") {
                Some(found) => found,
                None => Self::built_helm(progress).await?,
            },
        })
    }

    /// The pinned helm, for what must come out the same on every machine.
    pub async fn built_helm(progress: &Progress) -> Result<PathBuf> {
        Ok(built(&HELM, progress).await?.join("helm"))
    }
}
