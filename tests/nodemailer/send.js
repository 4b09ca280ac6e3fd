// Sends messages over one session of nodemailer; prints the replies as JSON.
const fs = require('fs');
const nodemailer = require('nodemailer');
const ask = JSON.parse(process.argv[process.argv.length - 1]);
const transport = nodemailer.createTransport({
    host: '127.0.0.1', port: ask.port, secure: ask.implicit, requireTLS: true, pool: true, maxConnections: 1,
    name: 'nodemailer.test', tls: {ca: fs.readFileSync(ask.trusted), servername: 'relay.test'},
    ...(ask.auth ? {auth: ask.auth} : {}),
});
async function run() {
    const replies = [];
    for (const message of ask.messages) {
        const envelope = {from: ask.from, to: [ask.to]};
        const content = message.raw
            ? {envelope, raw: fs.readFileSync(message.raw)}
            : {envelope, from: ask.from, to: ask.to, subject: message.subject, text: message.text,
                attachments: [{path: message.attachment}]};
        replies.push((await transport.sendMail(content)).response);
    }
    transport.close();
    console.log(JSON.stringify(replies));
}
run().catch(error => { console.error(error); process.exit(1); });
