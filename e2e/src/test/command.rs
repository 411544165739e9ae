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
    let mut out = Lines::new(child.stdout.take());
    let mut err = Lines::new(child.stderr.take());
    let (mut stdout, mut output) = (String::new(), String::new());
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let (next, is_out) = tokio::select! {
            next = out.next(), if out_open => (next, true),
            next = err.next(), if err_open => (next, false),
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

struct Lines<R> {
    stream: Option<BufReader<R>>,
    /// The beginning of the next line: what was read of it stays when the other stream comes first.
    bytes: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(stream: Option<R>) -> Self {
        Self {
            stream: stream.map(BufReader::new),
            bytes: Vec::new(),
        }
    }

    /// The next line with its end; what is no UTF-8 is replaced. `None` at the end. Can be dropped and called again.
    async fn next(&mut self) -> std::io::Result<Option<String>> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        stream.read_until(b'\n', &mut self.bytes).await?;
        let line = std::mem::take(&mut self.bytes);
        Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()))
    }
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
    use futures::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;

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

    #[tokio::test]
    async fn half_a_line_is_not_lost_when_the_other_stream_comes_first() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(Some(reader));
        writer.write_all(b"first ").await.unwrap();
        assert_eq!(lines.next().now_or_never().map(Result::unwrap), None);
        writer.write_all(b"half\nlast").await.unwrap();
        drop(writer);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            read.push(line);
        }
        assert_eq!(read, ["first half\n", "last"]);
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        assert_eq!(last_lines("a\nb\nc", 2), "(1 lines before)\nb\nc");
        assert_eq!(last_lines("a\nb", 2), "a\nb");
    }
}
