// Package simulate is a room for tests alone.
package simulate
