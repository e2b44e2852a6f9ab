// Package ingest reads mirrored packets from sockets: datagrams in batches
// (recvmmsg), streams cut into packets. One listener takes HEP 1, 2, 3 and SIP;
// they are told apart by content.
//
//	s, err := ingest.Listen(cfg, handler, counters, logger)
//	s.Serve()
//	...
//	s.Close() // drains what the kernel holds, waits for the readers
//
// What it leaves out: what a packet means. The handler gets every packet that
// was read; it must be done with the bytes when it returns.
package ingest
