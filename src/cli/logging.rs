//! Log set-up: `tracing` events to standard error, as text or as JSON lines.
//!
//! The level comes from `-v` and `-q` alone, never from the environment. Standard output belongs to results.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::uptime;

use super::args::Global;
use super::progress::Screen;

/// Sends this process's events to standard error. Called once, by a main; a second call changes nothing.
///
/// Text carries the seconds since the start, JSON the UTC time of each event.
pub fn init(global: &Global, screen: &Screen) {
    let screen = screen.clone();
    let dispatch = dispatch(global, io::stderr().is_terminal(), move || screen.log_writer());
    // The error says that a subscriber is installed already, which then stays.
    let _already_set = tracing::dispatcher::set_global_default(dispatch);
}

/// The least severe level shown: errors with `-q`, else info, debug with `-v`, trace with `-vv`.
fn level(global: &Global) -> LevelFilter {
    match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    }
}

fn dispatch<W>(global: &Global, colours: bool, writer: W) -> tracing::Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let events = tracing_subscriber::fmt().with_max_level(level(global)).with_writer(writer);
    if global.json_logs {
        events.json().flatten_event(true).with_current_span(false).into()
    } else {
        events.with_timer(uptime()).with_target(global.verbose > 0).with_ansi(colours).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(global: &Global) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        tracing::dispatcher::with_default(&dispatch(global, false, move || writer.clone()), || {
            tracing::error!(found = 3, "no key");
            tracing::info!("mapped");
            tracing::debug!("a tile");
            tracing::trace!("a limb");
        });
        let bytes = memory.0.lock().expect("no writer panics").clone();
        String::from_utf8(bytes).expect("logs are text")
    }

    #[test]
    fn levels_follow_the_options() {
        for (quiet, verbose, lines) in [(true, 0, 1), (false, 0, 2), (false, 1, 3), (false, 2, 4), (false, 9, 4)] {
            let text = logged(&Global { quiet, verbose, ..Global::default() });
            assert_eq!(text.lines().count(), lines, "quiet {quiet}, verbose {verbose}: {text}");
        }
    }

    #[test]
    fn json_logs_are_one_object_a_line() {
        let text = logged(&Global { json_logs: true, ..Global::default() });
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["level"], &lines[0]["message"]), (&"ERROR".into(), &"no key".into()));
        assert_eq!(lines[0]["found"], 3);
        assert_eq!(lines[1]["message"], "mapped");
    }
}
