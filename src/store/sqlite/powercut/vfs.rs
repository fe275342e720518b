//! A file system for SQLite that writes down what is done to it, and can be told to fail. It lies over the usual one; only
//! `xSync` does nothing there, since it is this recording that says what is durable.

#![allow(unsafe_code)]

use rusqlite::ffi;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, Once, PoisonError};

/// Something that was done to a file. Files are named by what follows the name of the database: "", "-wal", "-journal".
#[derive(Debug, Clone)]
pub(super) enum Op {
    Write {
        file: String,
        offset: u64,
        data: Vec<u8>,
    },
    Truncate {
        file: String,
        size: u64,
    },
    Sync {
        file: String,
    },
    Delete {
        file: String,
    },
    /// The names of the files are durable: what was deleted before stays so.
    SyncDirectory,
    /// The test was told by now that all of this is durable: records before this position.
    Promise {
        end: u64,
    },
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fault {
    #[default]
    None,
    /// The process is dead: nothing more reaches the files.
    Dead,
    /// It dies after so many more operations.
    DiesAfter(u64),
    /// There is no more room.
    Full,
    /// The next write of any file fails, if it is a sync.
    SyncFails,
}

#[derive(Debug, Default)]
pub(super) struct Recording {
    pub(super) ops: Vec<Op>,
    pub(super) fault: Fault,
    /// A disk that only says that it synced.
    pub(super) lies: bool,
}

impl Recording {
    /// Whether an operation may be done; otherwise the error.
    fn admit(&mut self, is_sync: bool, sync_error: c_int, other_error: c_int) -> Result<(), c_int> {
        match self.fault {
            Fault::None => Ok(()),
            Fault::Dead => Err(if is_sync { sync_error } else { other_error }),
            Fault::DiesAfter(0) => {
                self.fault = Fault::Dead;
                Err(if is_sync { sync_error } else { other_error })
            }
            Fault::DiesAfter(more) => {
                self.fault = Fault::DiesAfter(more - 1);
                Ok(())
            }
            Fault::Full if is_sync => Ok(()),
            Fault::Full => Err(ffi::SQLITE_FULL),
            Fault::SyncFails if is_sync => {
                self.fault = Fault::None;
                Err(sync_error)
            }
            Fault::SyncFails => Ok(()),
        }
    }
}

/// A file system of its own, for one test.
#[derive(Debug, Clone)]
pub(super) struct Vfs {
    pub(super) name: &'static str,
    recording: Arc<Mutex<Recording>>,
}

impl Vfs {
    /// Registers one. It is never unregistered: SQLite may hold on to it, and a test process is short.
    pub(super) fn new() -> Self {
        static INITIALIZE: Once = Once::new();
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        // SAFETY: initializing is allowed at any time; it makes sure that the default file system is there to be found.
        INITIALIZE.call_once(|| assert_eq!(unsafe { ffi::sqlite3_initialize() }, ffi::SQLITE_OK));
        let name = format!("recording-{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let recording = Arc::new(Mutex::new(Recording::default()));
        // SAFETY: a null name asks for the default file system, which is registered for good.
        let base = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
        assert!(!base.is_null());
        let context: &'static Context = Box::leak(Box::new(Context { base, recording: recording.clone() }));
        let c_name: &'static CStr = Box::leak(CString::new(name.clone()).unwrap().into_boxed_c_str());
        // SAFETY: `base` is valid, see above. Its other functions are taken over as they are: they do not look at the structure that
        // they are called with.
        let mut vfs = unsafe { *base };
        vfs.szOsFile += HEADER as c_int;
        vfs.pNext = std::ptr::null_mut();
        vfs.zName = c_name.as_ptr();
        vfs.pAppData = std::ptr::from_ref(context).cast_mut().cast();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        vfs.xAccess = Some(access);
        vfs.xFullPathname = Some(full_pathname);
        let vfs = Box::leak(Box::new(vfs));
        // SAFETY: `vfs` and all that it points at live for ever.
        assert_eq!(unsafe { ffi::sqlite3_vfs_register(vfs, 0) }, ffi::SQLITE_OK);
        Self { name: String::leak(name), recording }
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Recording) -> T) -> T {
        change(&mut self.recording.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Context {
    base: *mut ffi::sqlite3_vfs,
    recording: Arc<Mutex<Recording>>,
}

impl Context {
    fn with<T>(&self, change: impl FnOnce(&mut Recording) -> T) -> T {
        change(&mut self.recording.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What lies before the file of the system underneath.
#[repr(C)]
struct Recorded {
    file: ffi::sqlite3_file,
    context: *const Context,
    /// `None` for temporary files. Owned: made by `open`, freed by `close`.
    name: *mut Option<String>,
    /// The first sync covers the directory too: so does the usual file system for what it may have created.
    sync_directory: bool,
}

/// Room for a [`Recorded`], such that what follows is aligned for anything.
const HEADER: usize = size_of::<Recorded>().next_multiple_of(16);

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2, // without mapped memory: then every read sees what was written
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// What follows the name of the database in a path.
fn suffix(path: *const c_char) -> Option<String> {
    if path.is_null() {
        return None;
    }
    // SAFETY: SQLite passes paths as strings that end in a zero.
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy();
    path.rsplit_once("store.db").map(|(_, suffix)| suffix.to_owned())
}

/// The file of the system underneath.
///
/// # Safety
/// `file` was opened by [`open`].
unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` asked for the header and what the system underneath needs, in one piece.
    unsafe { file.cast::<u8>().add(HEADER).cast() }
}

/// Calls a method of the file underneath.
macro_rules! forward {
    ($file:ident . $method:ident ( $($argument:expr),* )) => {{
        // SAFETY: SQLite calls methods only of files that were opened; `open` left the one underneath with its own methods, and all
        // of those that are used here are there in every version that has a write-ahead log.
        unsafe {
            let real = real($file);
            match (*(*real).pMethods).$method {
                Some(method) => method(real, $($argument),*),
                None => std::process::abort(),
            }
        }
    }};
}

/// The context and the name of a file.
///
/// # Safety
/// `file` was opened by [`open`] and is not closed.
unsafe fn recorded<'a>(file: *mut ffi::sqlite3_file) -> (&'a Context, Option<&'a String>) {
    // SAFETY: `open` made both; the context lives for ever, the name until the file is closed.
    unsafe {
        let file = file.cast::<Recorded>();
        (&*(*file).context, (*(*file).name).as_ref())
    }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this with the structure that `Vfs::new` registered, and with room for `szOsFile` bytes at `file`. The path is
    // passed on as it came, as SQLite demands.
    unsafe {
        let context = (*vfs).pAppData.cast::<Context>();
        let base = (*context).base;
        (*file).pMethods = std::ptr::null();
        let Some(base_open) = (*base).xOpen else { return ffi::SQLITE_ERROR };
        let opened = base_open(base, path, real(file), flags, out_flags);
        if opened == ffi::SQLITE_OK {
            let recorded = file.cast::<Recorded>();
            (*recorded).context = context;
            (*recorded).name = Box::into_raw(Box::new(suffix(path)));
            let journals = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
            (*recorded).sync_directory = flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & journals != 0;
            (*file).pMethods = &METHODS;
        }
        opened
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the name was made by `open`, and SQLite closes a file once.
    drop(unsafe { Box::from_raw((*file.cast::<Recorded>()).name) });
    forward!(file.xClose())
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, data: *const c_void, length: c_int, offset: i64) -> c_int {
    // SAFETY: an open file, and `length` bytes at `data`.
    let ((context, name), bytes) = unsafe { (recorded(file), std::slice::from_raw_parts(data.cast::<u8>(), length as usize)) };
    // The lock is held until it is done: what is recorded is in the order in which it was done.
    context.with(|recording| {
        let Some(name) = name else { return forward!(file.xWrite(data, length, offset)) };
        if let Err(error) = recording.admit(false, 0, ffi::SQLITE_IOERR_WRITE) {
            return error;
        }
        recording.ops.push(Op::Write { file: name.clone(), offset: offset as u64, data: bytes.to_vec() });
        forward!(file.xWrite(data, length, offset))
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: an open file.
    let (context, name) = unsafe { recorded(file) };
    context.with(|recording| {
        let Some(name) = name else { return forward!(file.xTruncate(size)) };
        if let Err(error) = recording.admit(false, 0, ffi::SQLITE_IOERR_TRUNCATE) {
            return error;
        }
        recording.ops.push(Op::Truncate { file: name.clone(), size: size as u64 });
        forward!(file.xTruncate(size))
    })
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: an open file, which one thread uses at a time.
    let ((context, name), sync_directory) = unsafe { (recorded(file), std::mem::take(&mut (*file.cast::<Recorded>()).sync_directory)) };
    context.with(|recording| {
        let Some(name) = name else { return ffi::SQLITE_OK };
        if let Err(error) = recording.admit(true, ffi::SQLITE_IOERR_FSYNC, 0) {
            return error;
        }
        if !recording.lies {
            recording.ops.push(Op::Sync { file: name.clone() });
            if sync_directory {
                recording.ops.push(Op::SyncDirectory);
            }
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, path: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: SQLite calls this with the structure that `Vfs::new` registered.
    let context = unsafe { &*(*vfs).pAppData.cast::<Context>() };
    context.with(|recording| {
        if let Err(error) = recording.admit(false, 0, ffi::SQLITE_IOERR_DELETE) {
            return error;
        }
        if let Some(file) = suffix(path) {
            recording.ops.push(Op::Delete { file });
            if sync_directory != 0 && !recording.lies {
                recording.ops.push(Op::SyncDirectory);
            }
        }
        // SAFETY: the file system underneath is registered for good.
        unsafe {
            match (*context.base).xDelete {
                Some(delete) => delete(context.base, path, 0),
                None => ffi::SQLITE_ERROR,
            }
        }
    })
}

unsafe extern "C" fn access(vfs: *mut ffi::sqlite3_vfs, path: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: as in `delete`.
    unsafe {
        let base = (*(*vfs).pAppData.cast::<Context>()).base;
        match (*base).xAccess {
            Some(access) => access(base, path, flags, out),
            None => ffi::SQLITE_ERROR,
        }
    }
}

unsafe extern "C" fn full_pathname(vfs: *mut ffi::sqlite3_vfs, path: *const c_char, length: c_int, out: *mut c_char) -> c_int {
    // SAFETY: as in `delete`.
    unsafe {
        let base = (*(*vfs).pAppData.cast::<Context>()).base;
        match (*base).xFullPathname {
            Some(full_pathname) => full_pathname(base, path, length, out),
            None => ffi::SQLITE_ERROR,
        }
    }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, data: *mut c_void, length: c_int, offset: i64) -> c_int {
    forward!(file.xRead(data, length, offset))
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    forward!(file.xFileSize(size))
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file.xLock(level))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file.xUnlock(level))
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    forward!(file.xCheckReservedLock(out))
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    forward!(file.xFileControl(op, argument))
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file.xSectorSize())
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file.xDeviceCharacteristics())
}

unsafe extern "C" fn shm_map(file: *mut ffi::sqlite3_file, region: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int {
    forward!(file.xShmMap(region, size, extend, out))
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    forward!(file.xShmLock(offset, count, flags))
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    forward!(file.xShmBarrier());
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    forward!(file.xShmUnmap(delete))
}
