//! The scrape side against kubelets of our own over loopback and an API server in memory.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod records;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tokens;
