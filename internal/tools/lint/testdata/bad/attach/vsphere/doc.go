// Package vsphere is one of them.
package vsphere
