//! Input and output of the chat: a thread reads lines, and output leaves the line that is being typed intact.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{BufReader, ErrorKind, IsTerminal};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context as _;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, ExternalPrinter, Helper};
use tokio::sync::{mpsc, oneshot};

use super::common::show;
use super::lines::{BadLine, next_line};

const PROMPT: &str = "> ";
/// The commands that can be completed at the beginning of a line.
const COMMANDS: [&str; 10] =
    ["/broadcast ", "/direct ", "/help", "/join ", "/leave ", "/list", "/ping", "/quit", "/topics", "/who "];

/// A line of the input. Sending on `more` asks for the next line; dropping it ends the input.
pub(crate) struct Line {
    pub(crate) text: Result<String, BadLine>,
    pub(crate) more: oneshot::Sender<()>,
}

/// Restores the terminal's settings when dropped: if the chat ends while a line is being typed, the terminal is still
/// in raw mode.
#[cfg(unix)]
pub(crate) struct TerminalGuard(Option<nix::sys::termios::Termios>);

#[cfg(unix)]
impl TerminalGuard {
    pub(crate) fn new() -> Self {
        // Standard input is not a terminal: there is nothing to restore.
        Self(nix::sys::termios::tcgetattr(std::io::stdin()).ok())
    }
}

#[cfg(unix)]
impl Drop for TerminalGuard {
    fn drop(&mut self) {
        use nix::sys::termios::{SetArg, tcsetattr};
        if let Some(settings) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, settings);
        }
    }
}

/// On other systems there is nothing to restore.
#[cfg(not(unix))]
pub(crate) struct TerminalGuard;

#[cfg(not(unix))]
impl TerminalGuard {
    pub(crate) fn new() -> Self {
        Self
    }
}

/// The names seen so far, for completion.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Names {
    pub(crate) fn add(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    /// Completions of `typed_name`, the argument of `/direct `.
    fn completions(&self, typed_name: &str) -> Vec<String> {
        let typed_name = typed_name.strip_prefix('"').unwrap_or(typed_name);
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().filter(|name| name.starts_with(typed_name)).map(|name| quoted(name)).collect()
    }
}

/// A name as `/direct` expects it, with the space after it.
fn quoted(name: &str) -> String {
    if name.contains(char::is_whitespace) { format!("\"{name}\" ") } else { format!("{name} ") }
}

/// Completes commands, and names after `/direct`.
struct Completion(Names);

impl Completer for Completion {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..at).unwrap_or_default();
        Ok(match typed.strip_prefix("/direct ") {
            Some(typed_name) => (at - typed_name.len(), self.0.completions(typed_name)),
            None if typed.starts_with('/') => {
                let commands = COMMANDS.iter().filter(|command| command.starts_with(typed));
                (0, commands.map(|&command| command.to_owned()).collect())
            }
            None => (at, Vec::new()),
        })
    }
}

impl Hinter for Completion {
    type Hint = String;
}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Helper for Completion {}

/// Shows lines, and leaves the line that is being typed intact.
#[derive(Clone)]
pub(crate) struct Screen(Rc<RefCell<Output>>);

enum Output {
    Terminal(Box<dyn ExternalPrinter>),
    Pipe,
    /// The output is closed.
    Gone,
}

impl Screen {
    pub(crate) fn show(&self, text: &str) {
        let mut output = self.0.borrow_mut();
        let is_gone = match &mut *output {
            // If the terminal is gone, the reading thread ends as well.
            Output::Terminal(printer) => printer.print(format!("{text}\n")).is_err(),
            Output::Pipe => show(text).is_err_and(|e| e.kind() == ErrorKind::BrokenPipe),
            Output::Gone => true,
        };
        if is_gone {
            *output = Output::Gone;
        }
    }

    /// Shows a line that was read from a pipe, as a terminal would show it while it is typed.
    pub(crate) fn show_typed(&self, line: &str) {
        if !self.is_terminal() {
            self.show(&format!("{PROMPT}{line}"));
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        matches!(*self.0.borrow(), Output::Terminal(_))
    }

    /// Whether the output is closed.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(*self.0.borrow(), Output::Gone)
    }
}

/// Starts the thread that reads lines, because reading blocks. It ends with its input or with the chat.
pub(crate) fn start_input(names: Names) -> anyhow::Result<(mpsc::Receiver<Line>, Screen)> {
    let (sender, lines) = mpsc::channel(1);
    let ask = move |text| {
        let (more, wait) = oneshot::channel();
        sender.blocking_send(Line { text, more }).is_ok() && wait.blocking_recv().is_ok()
    };
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        thread::spawn(move || {
            let mut input = BufReader::new(std::io::stdin());
            // A read error ends the input, as its end does.
            while let Ok(Some(line)) = next_line(&mut input) {
                if !ask(line) {
                    break;
                }
            }
        });
        return Ok((lines, Screen(Rc::new(RefCell::new(Output::Pipe)))));
    }
    let mut editor = Editor::<Completion, DefaultHistory>::new().context("cannot use this terminal")?;
    editor.set_helper(Some(Completion(names)));
    let printer = editor.create_external_printer().context("cannot use this terminal")?;
    thread::spawn(move || {
        loop {
            match editor.readline(PROMPT) {
                Ok(line) => {
                    // A line that cannot be added to the history is still sent.
                    let _ = editor.add_history_entry(&line);
                    if !ask(Ok(line)) {
                        break;
                    }
                }
                Err(ReadlineError::Interrupted | ReadlineError::Eof) => break,
                Err(e) => {
                    eprintln!("Cannot read from the terminal: {e}");
                    break;
                }
            }
        }
    });
    Ok((lines, Screen(Rc::new(RefCell::new(Output::Terminal(Box::new(printer)))))))
}
