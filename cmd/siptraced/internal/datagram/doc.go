// Package datagram reads and writes many datagrams with one system call, and wakes
// nobody in between.
//
//	s, err := datagram.Take(conn) // a *net.UDPConn
//	r := s.Reader(64, 65535)
//	n, err := r.Read()            // waits for the first one
//	data, from := r.Datagram(0)
//	r.Pause(time.Millisecond)     // more may come
//	w := s.Writer(16)             // of a connected socket
//	n, err = w.Write([][]byte{a, b})
//	err = s.Close()
//
// A socket of package net is watched by the runtime at all times, for reading and for
// writing: each datagram that comes in, and each that left, wakes a thread, although
// nobody waits for it. A Socket is watched while its Reader waits, and for that alone.
// And its system calls, which never wait, are not announced to the scheduler, which
// would look after them with a thread of its own.
//
// Not included: which datagrams are read, and when.
package datagram
