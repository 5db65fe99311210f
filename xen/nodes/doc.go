// Package nodes writes and removes what a toolstack has to put into xenstore for a
// vscsi device (xen/include/public/io/vscsiif.h and xenbus.h of Xen 4.17): both ends'
// folders, with the permissions that each end needs. xl and libvirt know nothing of it.
package nodes
