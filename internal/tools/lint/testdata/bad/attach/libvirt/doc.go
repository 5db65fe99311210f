// Package libvirt looks sideways.
package libvirt
