//! The worker's command: holds no secret. Parses, starts logs and progress, calls one command, ends with its exit code.

use std::process::ExitCode;

use nightshift::cli::CliError;
use nightshift::cli::args::{self, Worker, WorkerCommand};
use nightshift::cli::commands::{
    self, Context, Report, calibrate, completions, doctor, queue, run, signing_keygen, status, work,
};

fn main() -> ExitCode {
    let worker: Worker = match args::parse(std::env::args_os()) {
        Ok(worker) => worker,
        Err(not_run) => {
            // Where the stream is closed there is nobody to tell.
            let _closed = not_run.print();
            return not_run.exit_code().into();
        }
    };
    let context = Context::start(&worker.global);
    commands::finish(commands::guarded(|| call(&worker.command, &context)), &worker.global).into()
}

fn call(command: &WorkerCommand, context: &Context) -> Result<Report, CliError> {
    match command {
        WorkerCommand::Completions { shell } => completions::run::<Worker>(*shell),
        WorkerCommand::Calibrate(args) => calibrate::run(args, context),
        WorkerCommand::Run(args) => run::run(args, context),
        WorkerCommand::Work(args) => work::run(args, context),
        WorkerCommand::Status(args) => status::run(args),
        WorkerCommand::Cancel(args) => queue::cancel(args),
        WorkerCommand::Requeue(args) => queue::requeue(args),
        WorkerCommand::Doctor(args) => doctor::run(args),
        WorkerCommand::SigningKeygen(args) => signing_keygen::run(args, context),
    }
}
