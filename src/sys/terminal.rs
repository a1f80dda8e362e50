//! Pseudoterminals (pty(7), ioctl_tty(2)).

use std::os::fd::{AsFd, OwnedFd};

use rustix::pty::OpenptFlags;
use rustix::termios::{InputModes, OptionalActions, Winsize};

use super::Errno;

/// Unlocks the slave of `master`, gives it its size, and opens it without looking up a path. Allocates nothing.
///
/// # Errors
/// As ioctl_tty(2).
pub fn open_slave(master: impl AsFd, rows: u16, columns: u16) -> Result<OwnedFd, Errno> {
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    resize(&slave, rows, columns)?;
    let mut modes = rustix::termios::tcgetattr(&slave)?;
    // Erasing a character erases all of its bytes.
    modes.input_modes |= InputModes::IUTF8;
    rustix::termios::tcsetattr(&slave, OptionalActions::Now, &modes)?;
    Ok(slave)
}

/// Gives a terminal another size, of which its foreground processes hear by SIGWINCH.
///
/// # Errors
/// As ioctl_tty(2).
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
}

/// Whether this is the master of a pseudoterminal and nothing else: the device 5:2 that every devpts has.
///
/// Of a file that somebody hostile has sent nothing may be asked that its file system would have to answer: a FUSE
/// server that does not would hold up whoever asks. The kernel has the type and the device at hand.
///
/// # Errors
/// As statx(2).
pub fn is_master(file: impl AsFd) -> Result<bool, Errno> {
    use rustix::fs::{AtFlags, FileType, StatxFlags};
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(file, "", flags, StatxFlags::TYPE)?;
    let is_device = FileType::from_raw_mode(found.stx_mode.into()).is_char_device();
    Ok(is_device && (found.stx_rdev_major, found.stx_rdev_minor) == (5, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_terminal_has_its_size_and_only_its_master_is_a_master() {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("ptmx");
        let slave = open_slave(&master, 7, 90).expect("slave");
        let size = rustix::termios::tcgetwinsize(&master).expect("size");
        assert_eq!((size.ws_row, size.ws_col), (7, 90));
        resize(&master, 8, 91).expect("resize");
        assert_eq!(rustix::termios::tcgetwinsize(&slave).expect("size").ws_row, 8);
        assert_eq!(is_master(&master), Ok(true));
        assert_eq!(is_master(&slave), Ok(false));
        assert_eq!(is_master(std::fs::File::open("/dev/null").expect("open")), Ok(false));
    }
}
