//! Running other programs, with errors that say what was run and what it said last.

use std::process::{ExitStatus, Output, Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// How much of what a failed program said goes into its error.
const LAST_LINES: usize = 15;

/// Runs a program to its end and gives its standard output; one that fails is an error with its last lines.
pub async fn output(mut command: Command) -> Result<String> {
    let line = line(&command);
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {line}"))?;
    judge(&line, output)
}

/// Like [`output`], for a program that reads `input`.
pub async fn output_of_input(mut command: Command, input: &[u8]) -> Result<String> {
    let line = line(&command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {line}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says why itself.
        let _broken_pipe = stdin.write_all(input).await;
    }
    let output = child
        .wait_with_output()
        .await
        .with_context(|| format!("cannot wait for {line}"))?;
    judge(&line, output)
}

/// Runs a program on the terminal.
pub async fn status(mut command: Command) -> Result<ExitStatus> {
    let line = line(&command);
    command
        .status()
        .await
        .with_context(|| format!("cannot start {line}"))
}

fn judge(line: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        let said = if stderr.trim().is_empty() { stdout } else { stderr };
        bail!("{line}: {}\n{}", output.status, last_lines(&said, LAST_LINES));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{line}: its output is not UTF-8"))
}

/// The last lines of a text, without blank ones at its end.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines
        .get(lines.len().saturating_sub(count)..)
        .unwrap_or_default()
        .join("\n")
}

/// A program with its arguments, for messages.
pub(crate) fn line(command: &Command) -> String {
    let command = command.as_std();
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        let argument = argument.to_string_lossy();
        // Scripts are given as one argument: their first line is enough to recognise them.
        line.push_str(argument.trim_start().lines().next().unwrap_or_default());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_the_last_ones() {
        assert_eq!(last_lines("a\nb\nc\n\n", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }

    #[tokio::test]
    async fn a_failure_tells_program_status_and_last_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo why >&2; exit 3"]);
        let error = output(command).await.unwrap_err().to_string();
        assert!(
            error.contains("sh -c echo why") && error.contains("exit status: 3") && error.ends_with("why"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn input_reaches_the_program() {
        assert_eq!(
            output_of_input(Command::new("cat"), b"text").await.unwrap(),
            "text"
        );
    }
}
