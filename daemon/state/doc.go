// Package state keeps what must survive a restart of vtgt: the identities that
// initiators know disks and exports by (SPC-4 §7.8.6 designators, relative target
// port identifiers), what initiators have a disk keep (saved mode pages, persistent
// reservations), the number of the configuration in force, earlier configurations,
// and the journals of attachments. It is one folder, versioned, with one owner at a
// time.
//
// Files are replaced whole: written beside, synced, renamed, and the folder
// synced. A crash leaves the old or the new content, never a part.
package state
