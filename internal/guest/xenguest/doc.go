// Package xenguest is a Xen host in QEMU (TCG): the hypervisor, Debian's kernel as its
// first domain, and paravirtual domains with the same kernel, each with an agent.
//
// The hypervisor and its tools are Debian's, unpacked as package guest does it.
package xenguest
