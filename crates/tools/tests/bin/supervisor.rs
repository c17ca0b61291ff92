//! The tests' stand-in for the daemon's binary: a supervisor if asked to be one, else a daemon of one command.
//!
//! `tools-test-supervisor DATA_DIR NODE_ID INPUT` runs `process.run` with that input, printing the command's output
//! as it comes, until it is over or this process is killed.

use std::io::Write;

use runtime::{Attempt, EffectCall, EffectClass, EffectId, JobId, Json, StepIndex};
use tools::{Options, PROCESS_RUN, ToolBox};

fn main() {
    tools::supervisor::main_if_requested();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data_dir, node_id, input] = arguments.as_slice() else {
        eprintln!("this binary only serves the tests of crate `tools`");
        std::process::exit(64);
    };
    let io = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("because a test machine has an epoll instance left");
    let pal = pal::Pal::new(64, 1 << 20);
    let mut events = pal.subscribe(pal::Filter::default(), pal::StartAt::Now);
    let tools = ToolBox::new(Options::new(data_dir, node_id), io.handle().clone(), pal);
    let call = EffectCall {
        id: EffectId {
            job: JobId::from_parts(1, 2),
            step: StepIndex(0),
            attempt: Attempt::FIRST,
        },
        kind: PROCESS_RUN.into(),
        class: EffectClass::External,
        input: Json::parse_text(input).expect("because the tests pass JSON"),
        label: "test".into(),
        interrupted: false,
    };
    let (sender, mut done) = tokio::sync::oneshot::channel();
    tools.start_with(call, move |result, _| drop(sender.send(result)));
    io.block_on(async {
        loop {
            tokio::select! {
                delivery = events.recv() => match delivery {
                    pal::Delivery::Event(event) => {
                        if let pal::EventKind::StepOutput { data, .. } = &event.kind {
                            let mut stdout = std::io::stdout();
                            let _ = stdout.write_all(data.as_bytes()).and_then(|()| stdout.flush());
                        }
                    }
                    pal::Delivery::Lagged { .. } => {}
                    _ => break,
                },
                result = &mut done => {
                    eprintln!("{result:?}");
                    break;
                }
            }
        }
    });
}
