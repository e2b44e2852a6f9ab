// An agent and a collector made of hep-js.
//
//   node hepjs.js encode udp|tcp PORT < LINES    sends each line, {"rcinfo": ..., "payload": ...}, as HEP3
//   node hepjs.js decode udp|tcp PORT            prints what it decodes, a line for each packet
'use strict';
const dgram = require('dgram');
const net = require('net');
const readline = require('readline');
const hep = require('hep-js');

const host = '127.0.0.1';
const [mode, network, port] = [process.argv[2], process.argv[3], Number(process.argv[4])];

async function encode() {
	let send, end;
	if (network === 'udp') {
		const s = dgram.createSocket('udp4');
		send = (b) => new Promise((done, failed) => s.send(b, port, host, (err) => (err ? failed(err) : done())));
		end = () => s.close();
	} else {
		const s = net.connect(port, host);
		send = (b) => new Promise((done, failed) => s.write(b, (err) => (err ? failed(err) : done())));
		end = () => s.end();
	}
	for await (const line of readline.createInterface({ input: process.stdin })) {
		const m = JSON.parse(line);
		await send(hep.encapsulate(m.payload, m.rcinfo));
	}
	end();
}

function print(b) {
	process.stdout.write(JSON.stringify(hep.decapsulate(b)) + '\n');
}

function decode() {
	if (network === 'udp') {
		dgram.createSocket('udp4').on('message', print).bind(port, host);
		return;
	}
	net.createServer((c) => {
		let left = Buffer.alloc(0);
		c.on('data', (b) => {
			left = Buffer.concat([left, b]);
			// HEP3: "HEP3", then the length of the packet in 16 bits.
			while (left.length >= 6 && left.length >= left.readUInt16BE(4)) {
				const n = left.readUInt16BE(4);
				print(left.subarray(0, n));
				left = left.subarray(n);
			}
		});
	}).listen(port, host);
}

(mode === 'encode' ? encode : decode)();
