// Takes mail from anybody for any domain and hands everything to one next hop.
'use strict'
const fs = require('node:fs')
exports.register = function () {
  this.register_hook('connect', 'relay')
  this.register_hook('rcpt', 'take')
  this.register_hook('get_mx', 'next_hop')
  // Haraka means to sync a queue file when its stream is closed, in a method `close`, which Node.js does not call since
  // version 14 when a stream ends: it calls `_destroy`.
  const QueueFile = this.haraka_require('outbound/fsync_writestream')
  const destroy = QueueFile.prototype._destroy
  QueueFile.prototype._destroy = function (error, done) {
    if (error || typeof this.fd !== 'number') return destroy.call(this, error, done)
    fs.fsync(this.fd, (failed) => destroy.call(this, failed, done))
  }
}
exports.relay = (next, connection) => { connection.relaying = true; next() }
exports.take = (next) => next(OK)
exports.next_hop = (next) => next(OK, [{ priority: 0, exchange: '127.0.0.1', port: @NEXT_HOP@ }])
