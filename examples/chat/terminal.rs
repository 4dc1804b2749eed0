//! Typing and showing at once: lines are read in a thread of their own, and what is shown meanwhile does not tear them.

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
/// What can be completed at the beginning of a line.
const COMMANDS: [&str; 10] =
    ["/broadcast ", "/direct ", "/help", "/join ", "/leave ", "/list", "/ping", "/quit", "/topics", "/who "];

/// A line as it was typed. The next one is asked for once `more` says so; without that, none is.
pub(crate) struct Line {
    pub(crate) text: Result<String, BadLine>,
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

/// Names that were seen, for completion.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Names {
    pub(crate) fn add(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    /// What can stand where `begun` stands behind `/direct `.
    fn that_begin(&self, begun: &str) -> Vec<String> {
        let begun = begun.strip_prefix('"').unwrap_or(begun);
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().filter(|name| name.starts_with(begun)).map(|name| quoted(name)).collect()
    }
}

/// A name as `/direct` takes it, with what separates it from the text.
fn quoted(name: &str) -> String {
    if name.contains(char::is_whitespace) { format!("\"{name}\" ") } else { format!("{name} ") }
}

/// Completes commands, and names behind `/direct`.
struct Completion(Names);

impl Completer for Completion {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..at).unwrap_or_default();
        Ok(match typed.strip_prefix("/direct ") {
            Some(begun) => (at - begun.len(), self.0.that_begin(begun)),
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

/// Where lines are shown without tearing the one that is being typed.
#[derive(Clone)]
pub(crate) struct Screen(Rc<RefCell<Output>>);

enum Output {
    Terminal(Box<dyn ExternalPrinter>),
    Pipe,
    /// Nobody reads any more.
    Gone,
}

impl Screen {
    pub(crate) fn show(&self, text: &str) {
        let mut output = self.0.borrow_mut();
        let is_gone = match &mut *output {
            // A terminal that is gone ends the reading side as well.
            Output::Terminal(printer) => printer.print(format!("{text}\n")).is_err(),
            Output::Pipe => show(text).is_err_and(|e| e.kind() == ErrorKind::BrokenPipe),
            Output::Gone => true,
        };
        if is_gone {
            *output = Output::Gone;
        }
    }

    /// Shows a line that was read from a pipe, as a terminal shows what is typed.
    pub(crate) fn show_typed(&self, line: &str) {
        if !self.is_terminal() {
            self.show(&format!("{PROMPT}{line}"));
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        matches!(*self.0.borrow(), Output::Terminal(_))
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(*self.0.borrow(), Output::Gone)
    }
}

/// Reads lines in a thread of their own, because reading blocks. It ends with its input, or with the chat.
pub(crate) fn keyboard(names: Names) -> anyhow::Result<(mpsc::Receiver<Line>, Screen)> {
    let (sender, lines) = mpsc::channel(1);
    let ask = move |text| {
        let (more, wait) = oneshot::channel();
        sender.blocking_send(Line { text, more }).is_ok() && wait.blocking_recv().is_ok()
    };
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        thread::spawn(move || {
            let mut input = BufReader::new(std::io::stdin());
            // A pipe that breaks ends as one that is over.
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
                    // History is a comfort; a line that cannot be kept is still sent.
                    let _ = editor.add_history_entry(&line);
                    if !ask(Ok(line)) {
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
    Ok((lines, Screen(Rc::new(RefCell::new(Output::Terminal(Box::new(printer)))))))
}
