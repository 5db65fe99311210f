// The xen package begins otherwise.
package xen
