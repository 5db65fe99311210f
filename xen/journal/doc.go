// Package journal keeps, in a page of memory that outlives the process, which requests
// were taken out of a ring of Xen's vscsiif and not answered, for the process that
// comes after it.
//
// The front end never connects again, and a response may stand in any slot whatever
// request it answers, so that the ring alone does not tell. The order of stores is the
// whole of it: a request's copy stands in its entry before the entry says Taken, and
// that before the count of taken requests; an entry says Answering before the response
// is written, and is free only after the response was shown.
package journal
