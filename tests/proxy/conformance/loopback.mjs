// The suite's server listens on every interface and on a port of its own choice; a test listens on loopback only.
import net from 'net'
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function () { return listen.call(this, 0, '127.0.0.1') }
