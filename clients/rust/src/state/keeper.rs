//! The handle to a store: calls in order, committed in groups, never on an async thread.

use super::{StateError, Store};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Calls that may wait for the store's thread. The driver has a handful under way at most, everybody else together
/// [`READERS_MAX`]: so the driver's never find the queue full.
const CALLS_MAX: usize = 128;
/// Calls of the application (reads) that may wait at the same time.
const READERS_MAX: usize = 64;
/// Calls that are committed together.
const GROUP_MAX: usize = 64;

/// Reports a call's result once it is known whether its transaction was committed.
type Finish = Box<dyn FnOnce(Result<(), StateError>) + Send>;
/// Carries out a call, or says why it cannot: whether to keep what it did, and how to report.
type Call = Box<dyn FnOnce(Result<&mut dyn Store, StateError>) -> (bool, Finish) + Send>;

enum Job {
    Call(Call),
    Stop(oneshot::Sender<()>),
}

/// The handle to a store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keeper {
    place: Place,
    readers: Arc<Semaphore>,
}

#[derive(Clone)]
enum Place {
    Thread(mpsc::Sender<Job>),
    Memory(Arc<Mutex<Option<Box<dyn Store>>>>),
}

impl Keeper {
    /// Opens a store on a thread of its own, which closes it at the end.
    pub async fn on_thread<S, F>(open: F) -> Result<Self, StateError>
    where
        S: Store + 'static,
        F: FnOnce() -> Result<S, StateError> + Send + 'static,
    {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let (opened, result) = oneshot::channel();
        let thread = std::thread::Builder::new().name("whimbrel-state".into());
        let spawned = thread.spawn(move || match open() {
            Ok(store) => {
                // Nobody waits any more if the builder was dropped: then the queue is closed too, and this ends at once.
                let _ = opened.send(Ok(()));
                run(store, queue);
            }
            Err(why) => {
                let _ = opened.send(Err(why));
            }
        });
        spawned.map_err(|why| StateError::Failed(format!("cannot start a thread: {why}")))?;
        result.await.map_err(|_| StateError::Closed)??;
        Ok(Self { place: Place::Thread(calls), readers: Arc::new(Semaphore::new(READERS_MAX)) })
    }

    /// A store that never blocks, run where it is called.
    pub fn in_place(store: impl Store + 'static) -> Self {
        let place = Place::Memory(Arc::new(Mutex::new(Some(Box::new(store)))));
        Self { place, readers: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    /// Hands a call over at once, after all that were handed over before; the future tells its result when it is durable. Only for
    /// the one driver: see [`CALLS_MAX`].
    pub fn call<T, F>(&self, work: F) -> impl Future<Output = Result<T, StateError>> + Send + 'static
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Store) -> Result<T, StateError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let call: Call = Box::new(move |store| {
            let done = store.and_then(work);
            let keep = done.is_ok();
            // The caller may be gone; what it asked for happened all the same.
            (keep, Box::new(move |committed| drop(reply.send(committed.and(done)))))
        });
        match &self.place {
            // Full never happens, by the limits above; closed shows as a dropped reply.
            Place::Thread(calls) => drop(calls.try_send(Job::Call(call))),
            Place::Memory(store) => {
                if let Some(store) = lock(store).as_mut() {
                    let (_, finish) = call(Ok(store.as_mut()));
                    finish(Ok(()));
                }
            }
        }
        async move { result.await.unwrap_or(Err(StateError::Closed)) }
    }

    /// A call of the application, which waits its turn.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Store) -> Result<T, StateError> + Send + 'static,
    {
        // Held until the result is there: that is what bounds the queue. The semaphore is never closed.
        let _turn = self.readers.acquire().await;
        self.call(work).await
    }

    /// Finishes what was handed over, closes the store and lets go of its lock.
    pub async fn stop(&self) {
        match &self.place {
            Place::Thread(calls) => {
                let (reply, stopped) = oneshot::channel();
                if calls.send(Job::Stop(reply)).await.is_ok() {
                    // An error says that the thread is gone, which is what was wanted.
                    let _ = stopped.await;
                }
            }
            Place::Memory(store) => drop(lock(store).take()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the store as it was between two calls: usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(mut store: impl Store, mut queue: mpsc::Receiver<Job>) {
    let mut stopped = None;
    while stopped.is_none() {
        let Some(job) = queue.blocking_recv() else { return };
        let mut group = Vec::new();
        let mut job = Some(job);
        while let Some(next) = job {
            match next {
                Job::Call(call) => group.push(call),
                Job::Stop(reply) => {
                    stopped = Some(reply);
                    break;
                }
            }
            job = if group.len() < GROUP_MAX { queue.try_recv().ok() } else { None };
        }
        commit(&mut store, group);
    }
    // First the lock goes, then who waits is told.
    drop(queue);
    drop(store);
    if let Some(reply) = stopped {
        let _ = reply.send(());
    }
}

fn commit(store: &mut impl Store, group: Vec<Call>) {
    if group.is_empty() {
        return;
    }
    let mut result = store.begin();
    let mut finishes = Vec::with_capacity(group.len());
    for call in group {
        // Without a transaction nothing may be done: each call then is only told so.
        if result.is_ok() {
            result = store.savepoint();
        }
        let (keep, finish) = call(result.clone().map(|()| store as &mut dyn Store));
        if result.is_ok() {
            result = store.end_savepoint(keep);
        }
        finishes.push(finish);
    }
    let result = result.and_then(|()| store.commit());
    if result.is_err() {
        store.rollback();
    }
    for finish in finishes {
        finish(result.clone());
    }
}
