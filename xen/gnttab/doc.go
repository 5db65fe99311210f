// Package gnttab is another domain's memory as /dev/xen/gntdev offers it
// (include/uapi/xen/gntdev.h of Linux): pages that the domain has granted, copied from
// and to, or mapped.
//
// Many copies go by one ioctl, with a status for each, and many pages are mapped by
// one. Batch and View are used again, so that nothing is allocated per request.
package gnttab
