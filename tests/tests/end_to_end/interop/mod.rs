//! Software that nobody here wrote sends mail to the relay, by STARTTLS and by implicit TLS, with its certificate
//! verified: one module for each family. What is sent must arrive once, octet by octet; where a client composes the
//! message itself, its parts must arrive.

mod curl;
mod measuring;
mod msmtp;
mod nodemailer;
mod readers;
mod scanners;
mod servers;
mod smtplib;
mod swaks;
