//! The client's and model owner's command: parses, starts logs and progress, calls one command, ends with its exit code.

use std::process::ExitCode;

use nightshift::cli::CliError;
use nightshift::cli::args::{self, Client, ClientCommand, ModelCommand};
use nightshift::cli::commands::{
    self, Context, Report, audit, completions, decrypt, demo, encrypt, evaluate, fetch, inspect, keygen, model_import,
    plan, sign, signing_keygen, submit, train, verify,
};

fn main() -> ExitCode {
    let client: Client = match args::parse(std::env::args_os()) {
        Ok(client) => client,
        Err(not_run) => {
            // Where the stream is closed there is nobody to tell.
            let _closed = not_run.print();
            return not_run.exit_code().into();
        }
    };
    let context = Context::start(&client.global);
    commands::finish(commands::guarded(|| call(&client.command, &context)), &client.global).into()
}

fn call(command: &ClientCommand, context: &Context) -> Result<Report, CliError> {
    match command {
        ClientCommand::Model(ModelCommand::Import(args)) => model_import::run(args, context),
        ClientCommand::Train(args) => train::run(args, context),
        ClientCommand::Evaluate(args) => evaluate::run(args, context),
        ClientCommand::Plan(args) => plan::run(args, context),
        ClientCommand::Keygen(args) => keygen::run(args, context),
        ClientCommand::Encrypt(args) => encrypt::run(args, context),
        ClientCommand::Submit(args) => submit::run(args, context),
        ClientCommand::Fetch(args) => fetch::run(args),
        ClientCommand::Decrypt(args) => decrypt::run(args, context),
        ClientCommand::Audit(args) => audit::run(args, context),
        ClientCommand::Verify(args) => verify::run(args),
        ClientCommand::SigningKeygen(args) => signing_keygen::run(args, context),
        ClientCommand::Sign(args) => sign::run(args),
        ClientCommand::Inspect(args) => inspect::run(args),
        ClientCommand::Completions { shell } => completions::run::<Client>(*shell),
        ClientCommand::Demo(args) => demo::run(args, context),
    }
}
