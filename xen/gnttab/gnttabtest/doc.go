// Package gnttabtest is another domain's memory and grant table (of Xen) in one
// process, for tests: pages, grants that notice when they are ended in use, and the
// Table of who maps and copies them.
package gnttabtest
