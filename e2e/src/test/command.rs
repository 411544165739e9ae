//! Running a program with its output captured.

use std::process::Stdio;

use anyhow::{Context as _, Result, anyhow};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;

use crate::command;

/// How many lines of a failed program's output are shown.
const SHOWN_LINES: usize = 300;

/// How a program ended, and all that it wrote, both streams in order of arrival.
pub(crate) struct Captured {
    /// Exit status 0.
    pub(crate) success: bool,
    /// Standard output alone.
    pub(crate) stdout: String,
    /// Both streams.
    pub(crate) output: String,
    /// For errors: the program with its arguments, and how it ended.
    ended: String,
}

impl Captured {
    /// What it says from its last line that begins with `error:` on, or else how it ended.
    pub(crate) fn error(&self) -> &str {
        let said = self
            .output
            .rfind("\nerror: ")
            .and_then(|at| self.output.get(at + 1..));
        said.or_else(|| self.output.starts_with("error: ").then_some(&*self.output))
            .map_or(&self.ended, str::trim_end)
    }

    /// What it wrote, or an error with the last lines of that if it did not succeed.
    pub(crate) fn ok(self) -> Result<Self> {
        if self.success {
            return Ok(self);
        }
        Err(anyhow!(
            "{}\n{}",
            self.ended,
            last_lines(&self.output, SHOWN_LINES)
        ))
    }
}

/// Runs `command` to its end without input. `line` sees each line as it comes.
pub(crate) async fn capture(mut command: Command, mut line: impl FnMut(&str)) -> Result<Captured> {
    let shown = command::line(&command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .with_context(|| format!("failed to start {shown}"))?;
    let mut out = lines(child.stdout.take());
    let mut err = lines(child.stderr.take());
    let (mut stdout, mut output) = (String::new(), String::new());
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let (next, is_out) = tokio::select! {
            next = read(&mut out), if out_open => (next, true),
            next = read(&mut err), if err_open => (next, false),
        };
        let Some(text) = next.with_context(|| format!("failed to read what {shown} writes"))? else {
            *(if is_out { &mut out_open } else { &mut err_open }) = false;
            continue;
        };
        line(text.trim_end());
        output.push_str(&text);
        if is_out {
            stdout.push_str(&text);
        }
    }
    let status = child
        .wait()
        .await
        .with_context(|| format!("failed to wait for {shown}"))?;
    Ok(Captured {
        success: status.success(),
        stdout,
        output,
        ended: format!("{shown}: {status}"),
    })
}

type Lines<R> = Option<BufReader<R>>;

fn lines<R: AsyncRead>(stream: Option<R>) -> Lines<R> {
    stream.map(BufReader::new)
}

/// The next line with its end; what is no UTF-8 is replaced. `None` at the end.
async fn read<R: AsyncRead + Unpin>(stream: &mut Lines<R>) -> std::io::Result<Option<String>> {
    let Some(stream) = stream else { return Ok(None) };
    let mut bytes = Vec::new();
    let count = stream.read_until(b'\n', &mut bytes).await?;
    Ok((count > 0).then(|| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The last `count` lines of `text`.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let skipped = lines.len().saturating_sub(count);
    let mut shown = lines.get(skipped..).unwrap_or_default().join("\n");
    if skipped > 0 {
        shown.insert_str(0, &format!("({skipped} lines before)\n"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_streams_and_the_status_are_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let mut seen = Vec::new();
        let captured = capture(command, |line| seen.push(line.to_owned())).await.unwrap();
        assert!(!captured.success);
        assert_eq!(captured.stdout, "out\n");
        seen.sort();
        assert_eq!(seen, ["err", "out"]);
        let error = captured.ok().err().unwrap().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("err"),
            "{error}"
        );
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        assert_eq!(last_lines("a\nb\nc", 2), "(1 lines before)\nb\nc");
        assert_eq!(last_lines("a\nb", 2), "a\nb");
    }
}
