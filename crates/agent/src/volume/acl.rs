//! POSIX access lists between the kernel's form, which knows accounts by number, and the share's, which knows them by name:
//! the same person has another number on another server, and a number may be another person there.
//!
//! The share's form is text, entries by kind and account: `u::rw-,u:alice:r--,u:#5001:r--,g::r--,m::r--,o::---`. `#`
//! stands before the number of an account without a name. **Invariant:** an entry is never given to somebody else: where a
//! name is unknown it is left out, and the list shows less than it was to.

use isotherm_gate::{GateError, Owners};

/// First bytes of the kernel's form: its version.
const VERSION: [u8; 4] = 2_u32.to_le_bytes();
/// Bytes of an entry: kind, rights, number.
const ENTRY: usize = 8;

/// Kinds of entries in the order that the kernel wants, with their letters; of two kinds for one letter the first is the
/// owner's.
const KINDS: [(u16, char, bool); 6] =
    [(0x01, 'u', false), (0x02, 'u', true), (0x04, 'g', false), (0x08, 'g', true), (0x10, 'm', false), (0x20, 'o', false)];

/// Whether an attribute is an access list.
pub(super) fn is_list(name: &[u8]) -> bool {
    name == b"system.posix_acl_access" || name == b"system.posix_acl_default"
}

/// The share's form. What is no list of the known version stays as it is.
///
/// # Errors
/// The name service fails: to let the number travel instead would look like a change.
pub(crate) fn to_share(value: &[u8], owners: &mut Owners) -> Result<Vec<u8>, GateError> {
    let Some(entries) = value.strip_prefix(&VERSION).filter(|entries| entries.len() % ENTRY == 0) else {
        return Ok(value.to_vec());
    };
    let mut shown = Vec::new();
    for entry in entries.chunks_exact(ENTRY) {
        let (kind, rights) = (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]));
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let Some(at) = KINDS.iter().position(|(known, ..)| *known == kind).filter(|_| rights < 8) else {
            return Ok(value.to_vec());
        };
        let (_, letter, is_named) = KINDS[at];
        let account = if is_named { account(letter, id, owners)? } else { String::new() };
        let bit = |bit: u16, letter: char| if rights & bit == 0 { '-' } else { letter };
        shown.push((at, format!("{letter}:{account}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x'))));
    }
    shown.sort();
    Ok(shown.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>().join(",").into_bytes())
}

fn account(letter: char, id: u32, owners: &mut Owners) -> Result<String, GateError> {
    let name = if letter == 'u' { owners.owner_names(id, 0)?.0 } else { owners.owner_names(0, id)?.1 };
    Ok(name.map_or_else(|| format!("#{id}"), |name| escape(&name)))
}

/// The kernel's form, without entries of accounts that are unknown here. What is no list in the share's form stays as it is.
///
/// # Errors
/// The name service fails.
pub(crate) fn to_kernel(value: &[u8], owners: &mut Owners) -> Result<Vec<u8>, GateError> {
    let mut kernel = VERSION.to_vec();
    let Some(entries) = std::str::from_utf8(value).ok().and_then(parse) else { return Ok(value.to_vec()) };
    for Entry { kind, letter, account, rights } in entries {
        let id = match account {
            None => Some(u32::MAX),
            Some(account) => match account.strip_prefix('#').map(str::parse) {
                Some(Ok(id)) => Some(id),
                Some(Err(_)) => None,
                None => {
                    let name = unescape(account);
                    if letter == 'u' { owners.owner_ids(&name, "root")?.0 } else { owners.owner_ids("root", &name)?.1 }
                }
            },
        };
        // The number that stands for no account belongs to the entries without one; elsewhere the kernel refuses the whole list.
        let Some(id) = id.filter(|id| account.is_none() || *id != u32::MAX) else { continue };
        kernel.extend(kind.to_le_bytes());
        kernel.extend(rights.to_le_bytes());
        kernel.extend(id.to_le_bytes());
    }
    Ok(kernel)
}

struct Entry<'a> {
    kind: u16,
    letter: char,
    account: Option<&'a str>,
    rights: u16,
}

fn parse(text: &str) -> Option<Vec<Entry<'_>>> {
    text.split(',')
        .map(|entry| {
            let mut fields = entry.split(':');
            let (letter, account, rights) = (fields.next()?, fields.next()?, fields.next()?);
            let account = Some(account).filter(|account| !account.is_empty());
            let same = |(_, known, is_named): &&(u16, char, bool)| letter == known.to_string() && *is_named == account.is_some();
            let (kind, letter, _) = KINDS.iter().find(same)?;
            let rights = parse_rights(rights).filter(|_| fields.next().is_none())?;
            Some(Entry { kind: *kind, letter: *letter, account, rights })
        })
        .collect()
}

fn parse_rights(text: &str) -> Option<u16> {
    let places = text.as_bytes().iter().zip([(b'r', 4), (b'w', 2), (b'x', 1)]);
    let mut rights = 0;
    for (byte, (letter, bit)) in places {
        match *byte {
            b'-' => {}
            byte if byte == letter => rights |= bit,
            _ => return None,
        }
    }
    (text.len() == 3).then_some(rights)
}

/// Characters that mean something in the text, and the sign that they are written with.
const SPECIAL: [(char, &str); 4] = [('%', "%25"), (',', "%2C"), (':', "%3A"), ('#', "%23")];

fn escape(name: &str) -> String {
    SPECIAL.iter().fold(name.to_owned(), |text, (special, written)| text.replace(*special, written))
}

fn unescape(text: &str) -> String {
    SPECIAL.iter().rev().fold(text.to_owned(), |text, (special, written)| text.replace(written, &special.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn kernel(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let bytes = |(kind, rights, id): &(u16, u16, u32)| {
            [&kind.to_le_bytes()[..], &rights.to_le_bytes()[..], &id.to_le_bytes()[..]].concat()
        };
        [VERSION.to_vec(), entries.iter().flat_map(bytes).collect()].concat()
    }

    const NOBODY: u32 = 3_999_999_999;

    #[test]
    fn accounts_travel_by_name_and_strangers_by_number() {
        let list = kernel(&[
            (0x01, 6, u32::MAX),
            (0x02, 5, NOBODY),
            (0x02, 4, 0),
            (0x04, 4, u32::MAX),
            (0x08, 7, 0),
            (0x10, 7, u32::MAX),
            (0x20, 0, u32::MAX),
        ]);
        let mut owners = Owners::default();
        let shared = to_share(&list, &mut owners).unwrap();
        let text = "u::rw-,u:#3999999999:r-x,u:root:r--,g::r--,g:root:rwx,m::rwx,o::---";
        assert_eq!(String::from_utf8(shared.clone()).unwrap(), text);
        assert_eq!(to_share(&to_kernel(&shared, &mut owners).unwrap(), &mut owners).unwrap(), shared);
    }

    #[test]
    fn an_unknown_name_is_left_out_and_given_to_nobody() {
        let mut owners = Owners::default();
        let wanted = b"u::rw-,u:no such user here:rwx,u:root:r--,g::r--,m::rwx,o::---";
        let got = to_share(&to_kernel(wanted, &mut owners).unwrap(), &mut owners).unwrap();
        assert_eq!(got, b"u::rw-,u:root:r--,g::r--,m::rwx,o::---");
        // Nor is the number that stands for none: the kernel would refuse all of the list.
        let none = to_kernel(b"u::rw-,u:#4294967295:rwx,g::r--,m::rwx,o::---", &mut owners).unwrap();
        assert_eq!(to_share(&none, &mut owners).unwrap(), b"u::rw-,g::r--,m::rwx,o::---");
    }

    #[test]
    fn while_the_name_service_is_away_accounts_keep_their_names() {
        let list =
            kernel(&[(0x01, 6, u32::MAX), (0x02, 5, NOBODY), (0x04, 4, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)]);
        let mut owners = Owners::with_last_names([(isotherm_gate::Account::User(NOBODY), "alice".to_owned())].into());
        let shared = to_share(&list, &mut owners).unwrap();
        assert_eq!(shared, b"u::rw-,u:alice:r-x,g::r--,m::rwx,o::---");
        assert_eq!(to_kernel(&shared, &mut owners).unwrap(), list);
    }

    #[test]
    fn what_is_no_list_stays_as_it_is() {
        let mut owners = Owners::default();
        for value in [&b"\x03\0\0\0"[..], b"\x02\0\0\0abc", b"", b"u::rw", b"u:a:b:rwx", b"x::rwx", b"u::rwxr", b"\xff"] {
            assert_eq!(to_kernel(value, &mut owners).unwrap(), value, "{value:?}");
            assert_eq!(to_share(value, &mut owners).unwrap(), value, "{value:?}");
        }
        assert_eq!(unescape(&escape("DOMAIN\\a,b:c#%2C")), "DOMAIN\\a,b:c#%2C");
    }
}
