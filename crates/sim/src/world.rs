//! The world of effects: it does what a test says, and sees to it that no effect starts that should not.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;

use runtime::{
    CancelReason, Completer, EffectCall, EffectClass, EffectError, EffectId, EffectResult,
    EffectRunner, Json,
};

use crate::ledger::Ledger;

/// What the world makes of an effect.
pub enum Behaviour {
    /// It runs until the test ends it, or the engine asks for its end.
    Hang,
    /// It runs and cannot be ended: asked to, it goes on.
    Stubborn,
    /// It comes to this as soon as the test lets the world answer.
    Answer(EffectResult),
    /// Its handler panics, or forgets about it.
    Vanish,
}

/// One start of an effect, as the world saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which try of which effect.
    pub id: EffectId,
    /// The step's name.
    pub label: String,
    /// Its class.
    pub class: EffectClass,
    /// The key by which the other side knows it.
    pub key: String,
    /// Whether it was said to have been begun before.
    pub interrupted: bool,
    /// In which life of the node it was.
    pub life: u32,
}

#[derive(Default)]
struct State {
    life: u32,
    ledger: Ledger,
    starts: Vec<Start>,
    running: BTreeMap<EffectId, Running>,
    cancels: Vec<(EffectId, CancelReason)>,
    settled: Vec<EffectId>,
    /// Tries of this life that are answered.
    answered: Vec<EffectId>,
    running_max: Option<usize>,
}

struct Running {
    call: EffectCall,
    behaviour: Behaviour,
    completer: Completer,
    is_asked_to_end: bool,
}

type Script = Box<dyn FnMut(&EffectCall) -> Behaviour>;

/// The world. Clones are the same one.
#[derive(Clone)]
pub struct World {
    state: Rc<RefCell<State>>,
    script: Rc<RefCell<Script>>,
}

impl World {
    /// A world in which every effect does what `script` says.
    pub fn new(script: impl FnMut(&EffectCall) -> Behaviour + 'static) -> Self {
        Self {
            state: Rc::default(),
            script: Rc::new(RefCell::new(Box::new(script))),
        }
    }

    /// A world in which everything runs until the test ends it.
    pub fn by_hand() -> Self {
        Self::new(|_| Behaviour::Hang)
    }

    /// A world in which everything gives `null`.
    pub fn obliging() -> Self {
        Self::new(|_| Behaviour::Answer(Ok(Json::null())))
    }

    /// Another script for the effects to come.
    pub fn behave(&self, script: impl FnMut(&EffectCall) -> Behaviour + 'static) {
        *self.script.borrow_mut() = Box::new(script);
    }

    /// What is on disk.
    pub fn ledger(&self) -> Ref<'_, Ledger> {
        Ref::map(self.state.borrow(), |state| &state.ledger)
    }

    pub(crate) fn ledger_mut(&self) -> RefMut<'_, Ledger> {
        RefMut::map(self.state.borrow_mut(), |state| &mut state.ledger)
    }

    /// Sets how many effects may be at work at the same time.
    pub fn limit_running(&self, most: usize) {
        self.state.borrow_mut().running_max = Some(most);
    }

    pub(crate) fn begin_life(&self) {
        self.state.borrow_mut().life += 1;
    }

    /// The node is gone, and with it everybody who would hear of a result.
    pub(crate) fn end_life(&self) {
        let running = {
            let mut state = self.state.borrow_mut();
            state.answered.clear();
            std::mem::take(&mut state.running)
        };
        drop(running);
    }

    /// The tries of this life that are answered, in the order of their answers.
    pub fn answered(&self) -> Vec<EffectId> {
        self.state.borrow().answered.clone()
    }

    /// Tries that run, in the order of ids.
    pub fn running_ids(&self) -> Vec<EffectId> {
        self.state.borrow().running.keys().copied().collect()
    }

    /// All starts so far.
    pub fn starts(&self) -> Vec<Start> {
        self.state.borrow().starts.clone()
    }

    /// The starts of one step, by its label.
    pub fn starts_of(&self, label: &str) -> Vec<Start> {
        let starts = self.starts();
        starts.into_iter().filter(|s| s.label == label).collect()
    }

    /// The labels of what runs, in the order of ids.
    pub fn running(&self) -> Vec<String> {
        let state = self.state.borrow();
        state
            .running
            .values()
            .map(|running| running.call.label.to_string())
            .collect()
    }

    /// What runs and was not asked to end.
    pub fn running_unasked(&self) -> Vec<String> {
        let state = self.state.borrow();
        let running = state
            .running
            .iter()
            .filter(|(_, running)| !running.is_asked_to_end);
        running.map(|(id, _)| id.to_string()).collect()
    }

    /// Whether an effect runs.
    pub fn is_running(&self, id: EffectId) -> bool {
        self.state.borrow().running.contains_key(&id)
    }

    /// What was asked to end, and why.
    pub fn cancels(&self) -> Vec<(EffectId, CancelReason)> {
        self.state.borrow().cancels.clone()
    }

    /// Effects whose outcome was said to be durable.
    pub fn settled(&self) -> Vec<EffectId> {
        self.state.borrow().settled.clone()
    }

    /// Ends the running effect of this label.
    ///
    /// # Panics
    ///
    /// If none runs.
    pub fn complete(&self, label: &str, result: EffectResult) {
        let id = self
            .state
            .borrow()
            .running
            .iter()
            .find_map(|(id, running)| (&*running.call.label == label).then_some(*id))
            .unwrap_or_else(|| panic!("no effect `{label}` runs, but {:?}", self.running()));
        self.complete_id(id, result);
    }

    /// Ends a running effect.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn complete_id(&self, id: EffectId, result: EffectResult) {
        let running = self.take(id);
        self.give(id, &result);
        running.completer.complete(result);
    }

    fn take(&self, id: EffectId) -> Running {
        let mut state = self.state.borrow_mut();
        state.answered.push(id);
        let running = state.running.remove(&id);
        running.unwrap_or_else(|| panic!("effect {id} does not run"))
    }

    fn give(&self, id: EffectId, result: &EffectResult) {
        if let Ok(json) = result {
            self.ledger_mut().give(id, json.as_str());
        }
    }

    /// Takes a running effect out of the world, to be completed by the test, perhaps too late.
    pub fn steal(&self, label: &str) -> Completer {
        let mut state = self.state.borrow_mut();
        let id = state
            .running
            .iter()
            .find_map(|(id, running)| (&*running.call.label == label).then_some(*id))
            .unwrap_or_else(|| panic!("no effect `{label}` runs"));
        state.running.remove(&id).map(|r| r.completer).unwrap()
    }

    /// The running effects that are ready to answer, in the order of ids.
    pub fn ready(&self) -> Vec<EffectId> {
        let state = self.state.borrow();
        state
            .running
            .iter()
            .filter(|(_, running)| {
                matches!(running.behaviour, Behaviour::Answer(_) | Behaviour::Vanish)
            })
            .map(|(id, _)| *id)
            .collect()
    }

    /// Lets one effect answer that is ready to.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn answer(&self, id: EffectId) {
        let running = self.take(id);
        match running.behaviour {
            Behaviour::Answer(result) => {
                self.give(id, &result);
                running.completer.complete(result);
            }
            _ => drop(running.completer),
        }
    }

    /// The runner that brings the engine's effects into this world.
    pub fn runner(&self) -> Runner {
        Runner(self.clone())
    }
}

/// The engine's way into a [`World`].
pub struct Runner(World);

impl EffectRunner for Runner {
    fn start(&mut self, call: EffectCall, completer: Completer) {
        let behaviour = (self.0.script.borrow_mut())(&call);
        let mut state = self.0.state.borrow_mut();
        let id = call.id;
        state.ledger.check_start(id, call.class);
        // A read may have begun before its intent was durable; with the intent gone nobody knows of it, and its step may
        // be something else now.
        let begun = |start: &Start| start.id == id && start.class != EffectClass::Read;
        let begun_before = state.starts.iter().any(begun);
        if begun_before {
            assert!(
                call.class.reruns(),
                "{id} may have taken effect, and is of class external: it is not to run again"
            );
            assert!(
                call.interrupted,
                "{id} was begun before, and is not told so"
            );
        }
        let same_step = |other: &&EffectId| other.job == id.job && other.step == id.step;
        assert_eq!(
            state.running.keys().find(same_step),
            None,
            "{id} starts while another try of it runs"
        );
        let at_work = state
            .running
            .values()
            .filter(|running| !running.is_asked_to_end);
        let at_work = at_work.count();
        if let Some(limit) = state.running_max {
            assert!(
                at_work < limit,
                "{id} starts while {at_work} effects are at work, and {limit} may be"
            );
        }
        let start = Start {
            id,
            label: call.label.to_string(),
            class: call.class,
            key: call.idempotency_key(),
            interrupted: call.interrupted,
            life: state.life,
        };
        state.starts.push(start);
        let running = Running {
            call,
            behaviour,
            completer,
            is_asked_to_end: false,
        };
        state.running.insert(id, running);
    }

    fn cancel(&mut self, id: EffectId, reason: CancelReason) {
        let mut state = self.0.state.borrow_mut();
        state.cancels.push((id, reason));
        let Some(running) = state.running.get_mut(&id) else {
            return;
        };
        running.is_asked_to_end = true;
        if !matches!(running.behaviour, Behaviour::Stubborn) {
            let error = EffectError::permanent(EffectError::CANCELLED, "ended as asked");
            running.behaviour = Behaviour::Answer(Err(error));
        }
    }

    fn settled(&mut self, id: EffectId) {
        self.0.state.borrow_mut().settled.push(id);
    }
}

/// Bytes as hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal text as bytes.
pub fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}
