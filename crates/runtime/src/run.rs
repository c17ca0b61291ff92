//! A program as a task: what begins it, begins it anew from its checkpoints, catches its panics and keeps its result.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use crate::cell::Cell;
use crate::context::Context;
use crate::json::Json;
use crate::program::{Failure, Program, ProgramFuture, ProgramResult};

/// The root task of a job: runs the program and leaves its result in the cell. A program that panics has failed; its
/// job ends, and nothing else does.
pub(crate) async fn supervised(
    program: Arc<dyn Program>,
    context: Context,
    cell: Rc<Cell>,
    input: Json,
) {
    cell.set_root(context.handle().current());
    let result = loop {
        let begin = || program.start(context.clone(), input.clone());
        let ended = match caught(begin) {
            Ok(future) => run(future, &cell).await,
            Err(failure) => Some(Err(failure)),
        };
        match ended {
            Some(result) => break result,
            // What the old life of the program has spawned ends with it.
            None => cell.take_children().into_iter().for_each(|child| {
                context.handle().cancel(child);
            }),
        }
    };
    cell.set_returned(result);
}

/// Runs a program until it ends, or, without a result, until it is to be begun anew.
async fn run(mut future: ProgramFuture, cell: &Cell) -> Option<ProgramResult> {
    let ended = poll_fn(|waker| {
        // The future is not polled again after it panicked, so that nobody sees what it left half done.
        let polled = caught(|| future.as_mut().poll(waker));
        match polled {
            Err(failure) => Poll::Ready(Some(Err(failure))),
            // First, since what comes after a checkpoint would not come in a life that began at it.
            Ok(_) if cell.takes_restart() => Poll::Ready(None),
            Ok(Poll::Ready(result)) => Poll::Ready(Some(result)),
            Ok(Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    match caught(|| drop(future)) {
        Ok(()) => ended,
        Err(failure) => Some(Err(failure)),
    }
}

/// Runs code of a program.
fn caught<T>(code: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| failure_of(&*panic))
}

fn failure_of(panic: &(dyn Any + Send)) -> Failure {
    let message = panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("of unknown cause");
    Failure::new("panic", format!("program panicked: {message}"))
}
