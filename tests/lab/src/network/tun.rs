//! One end of a link: a TUN device, whose packets this process reads and writes.

use super::Namespace;
use crate::LabError;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;

/// Bytes of a name of a device, its end included.
const NAME_BYTES: usize = 16;
/// Bytes of the kernel's `struct ifreq`: the name, then a union whose first member are the flags.
const REQUEST_BYTES: usize = 40;
/// Whole IP packets …
const IFF_TUN: u16 = 0x0001;
/// … and nothing before them.
const IFF_NO_PI: u16 = 0x1000;

/// Opens a device in a namespace. It is gone when the file is closed; reading from it does not wait.
///
/// # Errors
/// If this process may not, or the name is taken.
pub(super) fn open(space: &Namespace, name: &str) -> Result<File, LabError> {
    let opened = space.run(|| {
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        set_interface(&file, name)?;
        rustix::io::ioctl_fionbio(&file, true)?;
        Ok::<_, io::Error>(file)
    });
    opened.and_then(|opened| opened).map_err(|why| LabError::NoTun { name: name.into(), why })
}

#[expect(unsafe_code, reason = "there is no safe wrapper")]
fn set_interface(file: &File, name: &str) -> io::Result<()> {
    let mut request = [0; REQUEST_BYTES];
    let room = request.get_mut(..name.len()).filter(|room| room.len() < NAME_BYTES);
    room.ok_or_else(|| io::Error::other("a device's name has at most 15 bytes"))?.copy_from_slice(name.as_bytes());
    request[NAME_BYTES..NAME_BYTES + 2].copy_from_slice(&(IFF_TUN | IFF_NO_PI).to_ne_bytes());
    // SAFETY: the file is the TUN driver's, whose TUNSETIFF takes a pointer to a `struct ifreq` and reads and writes that alone; the
    // request has its size and lives until the call returns.
    Ok(unsafe { ioctl(file, SetInterface { request }) }?)
}

struct SetInterface {
    request: [u8; REQUEST_BYTES],
}

// SAFETY: the opcode is TUNSETIFF's, which takes a pointer to what `as_ptr` points to and may write the name there.
#[expect(unsafe_code, reason = "how rustix takes a request that it does not know")]
unsafe impl Ioctl for SetInterface {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::write::<c_int>(b'T', 202)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.request.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}
