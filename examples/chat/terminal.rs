//! Typing and showing at once: lines are read in a thread of their own, and what is shown meanwhile does not tear them.

use std::io::{BufRead, IsTerminal};
use std::thread;

use anyhow::Context;
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use tokio::sync::{mpsc, oneshot};

const PROMPT: &str = "> ";

/// A line as it was typed. The next one is asked for once `more` says so; without that, none is.
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) more: oneshot::Sender<()>,
}

/// Sets the terminal back when it is dropped: a line that is still being typed when the chat ends keeps it raw.
#[cfg(unix)]
pub(crate) struct Cooked(Option<nix::sys::termios::Termios>);

#[cfg(unix)]
impl Cooked {
    pub(crate) fn now() -> Self {
        // Where it is no terminal, there is nothing to set back.
        Self(nix::sys::termios::tcgetattr(std::io::stdin()).ok())
    }
}

#[cfg(unix)]
impl Drop for Cooked {
    fn drop(&mut self) {
        use nix::sys::termios::{SetArg, tcsetattr};
        if let Some(settings) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, settings);
        }
    }
}

/// Elsewhere the system does that.
#[cfg(not(unix))]
pub(crate) struct Cooked;

#[cfg(not(unix))]
impl Cooked {
    pub(crate) fn now() -> Self {
        Self
    }
}

/// Where lines are shown without tearing the one that is being typed.
pub(crate) enum Screen {
    Terminal(Box<dyn ExternalPrinter + Send>),
    Pipe,
}

impl Screen {
    pub(crate) fn show(&mut self, text: &str) {
        match self {
            // A terminal that is gone ends the reading side as well.
            Self::Terminal(printer) => drop(printer.print(format!("{text}\n"))),
            Self::Pipe => println!("{text}"),
        }
    }
}

/// Reads lines in a thread of their own, because reading blocks. It ends with its input, or with the chat.
pub(crate) fn keyboard() -> anyhow::Result<(mpsc::Receiver<Line>, Screen)> {
    let (sender, lines) = mpsc::channel(1);
    let ask = move |text: String| {
        let (more, wait) = oneshot::channel();
        sender.blocking_send(Line { text, more }).is_ok() && wait.blocking_recv().is_ok()
    };
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                println!("{PROMPT}{line}");
                if !ask(line) {
                    break;
                }
            }
        });
        return Ok((lines, Screen::Pipe));
    }
    let mut editor = DefaultEditor::new().context("cannot use this terminal")?;
    let printer = editor.create_external_printer().context("cannot use this terminal")?;
    thread::spawn(move || {
        loop {
            match editor.readline(PROMPT) {
                Ok(line) => {
                    // History is a comfort; a line that cannot be kept is still sent.
                    let _ = editor.add_history_entry(&line);
                    if !ask(line) {
                        break;
                    }
                }
                Err(ReadlineError::Interrupted | ReadlineError::Eof) => break,
                Err(e) => {
                    eprintln!("The terminal cannot be read: {e}");
                    break;
                }
            }
        }
    });
    Ok((lines, Screen::Terminal(Box::new(printer))))
}
