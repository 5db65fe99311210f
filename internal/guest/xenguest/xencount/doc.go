// Command xencount counts the hypercalls in a trace that Xen's xentrace has written
// (xen/include/public/trace.h of Xen 4.17), those of one processor, as a JSON object.
package main
