// Takes mail from anybody for any domain and hands everything to one next hop.
'use strict'
exports.register = function () {
  this.register_hook('connect', 'relay')
  this.register_hook('rcpt', 'take')
  this.register_hook('get_mx', 'next_hop')
}
exports.relay = (next, connection) => { connection.relaying = true; next() }
exports.take = (next) => next(OK)
exports.next_hop = (next) => next(OK, [{ priority: 0, exchange: '127.0.0.1', port: @NEXT_HOP@ }])
