// Package cluster keeps batches in a NATS JetStream cluster, which other processes use
// as well (journal.Engine, journal.Common).
//
// Each shard is a stream, "SIPTRACED_<shard>". A batch is one message, on the subject
// "siptraced.trace.<shard>.<intake>" of the process that took it in; its headers are
//
//	Records      how many records it holds
//	Total        how many its intake put into the stream with it
//	Intake       names the intake
//	Nats-Msg-Id  names the batch
//
// and its time is when the cluster took it. Positions are the key-value bucket
// "siptraced_positions". Former versions of siptraced use the same streams, subjects,
// headers and keys, so that the instances of a cluster can be replaced one by one.
//
// # A batch is kept once
//
// The answer to a message can be lost, and the message itself can come late: from a
// server that was stopped meanwhile, say. So each message goes with a fence, a
// condition that the stream keeps and that holds once at most: the number of the last
// message on the intake's own subject (Nats-Expected-Last-Subject-Sequence), or, where
// that subject has none, the number of the stream's last message
// (Nats-Expected-Last-Sequence). Whatever attempt comes second is refused. The intake
// then looks whether its subject's last message is the batch. If the subject has none,
// others may have consumed and trimmed the batch: who trims first notes, in the bucket,
// how far he saw each intake come (the key "gone.<shard>"). So the answer does not
// depend on JetStream's window for duplicates, which is two minutes.
//
// What the stream removes by its bounds in age and bytes, or what somebody purges by
// hand, or by a former version of siptraced, is not noted: a batch whose answer was
// lost and that went so before its intake could look is put in again.
package cluster
