// Package tempotest keeps tests independent of how busy the machine is: what must
// happen is waited for with bounds that only a hang reaches, and what is about time
// by its nature is tried with short times first and with longer ones where that
// machine was too slow for them.
package tempotest
