// Package xen puts targets into Xen domains, as the half of a toolstack that xl and
// libvirt lack for vscsi (xen/include/public/io/vscsiif.h of Xen 4.17): it gives the
// target an export to the domain, and the domain the nodes of a device in xenstore. The
// daemon writes those again after each boot of the domain.
package xen
