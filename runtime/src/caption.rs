//! `caption`, and `answer` of models that are told pictures: what a picture shows, what a question about it is
//! answered with.
//!
//! Input: pictures' files, perhaps how captions begin; or a picture and questions; names and questions also one a
//! line on standard input. Output: a line for each, or a JSON
//! line `{"image", "captions": […]}` or `{"question", "answers": […]}`, whose entries are `{"text", "tokens",
//! "finish_reason", "score"}`, the score being that of a search.
//!
//! ```text
//! caption    [picture] PROMPT            without a prompt the token that begins texts
//! answer     [picture] Question: QUESTION Answer:
//! ```
//!
//! Not here: answers out of a text (`answer`), raw prompts (`generate`).

use crate::answer::AnswerArgs;
use crate::generation_flags::GenerationFlags;
use crate::session::Session;
use crate::text_tools::TextTools;
use crate::texts::{self, Texts};
use crate::told::Told;
use crate::writer::{Said, Writer};
use crate::{Error, Result, pictures};
use serde::Serialize;
use std::io::{BufRead, Write};
use std::path::Path;

/// Arguments of `caption`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CaptionArgs {
    /// The pictures' files; `-` or nothing reads one a line from standard input
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    /// What the model reads before its captions, such as `a photo of`
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// At most N new tokens for each text [default: 64]
    #[arg(short = 'n', value_name = "N")]
    pub new: Option<usize>,
    /// Print JSON lines; always for files named on standard input
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub flags: GenerationFlags,
}

/// New tokens when `-n` says nothing.
const DEFAULT_NEW: usize = 64;

#[derive(Serialize)]
struct Captions<'a> {
    image: &'a str,
    captions: Vec<Said>,
}

#[derive(Serialize)]
struct Answers<'a> {
    question: &'a str,
    answers: Vec<Said>,
}

/// What both tasks need.
struct Teller<'s> {
    session: &'s Session<'s>,
    told: Told<'s>,
    tools: TextTools<'s>,
    writer: Writer<'s>,
}

impl<'s> Teller<'s> {
    fn new(
        session: &'s Session<'s>,
        told: Told<'s>,
        flags: &GenerationFlags,
        new: Option<usize>,
    ) -> Result<Teller<'s>> {
        let m = session.manifest;
        let generation = flags.resolve(&m.generation, m)?;
        let tools = session.text_tools()?;
        let context = m.limits.max_context as usize;
        let new = new.unwrap_or(DEFAULT_NEW).min(context);
        let writer = Writer::new(session, generation, (context, new))?;
        Ok(Teller {
            session,
            told,
            tools,
            writer,
        })
    }

    /// What queries find in a file's picture.
    fn see(&mut self, path: &Path) -> Result<Vec<f32>> {
        let pixels = pictures::read_file(self.session, self.told.model, path)?;
        self.told
            .see(&mut self.writer.engine, &pixels, &mut |_, _| {})
    }

    /// Texts behind a picture and a text.
    fn tell(&mut self, features: &[f32], text: Option<&str>) -> Result<Vec<Said>> {
        let ids = match text {
            Some(text) => self.tools.tokenizer.encode(text, true)?.ids,
            None => vec![start(self.session)?],
        };
        let prompt = self.told.prompt(features, &ids);
        self.writer
            .write(&self.tools.tokenizer, &prompt.ids, prompt.given())
    }
}

/// The token that begins a text where nothing is asked.
pub fn start(session: &Session<'_>) -> Result<u32> {
    session.manifest.tokens.bos.ok_or_else(|| {
        Error::Unsupported("this model has no token that begins texts: give a prompt".into())
    })
}

/// Prints texts, a line each.
fn tell_plainly(said: &[Said], out: &mut dyn Write) -> Result<()> {
    let mut wrote = said.iter().try_for_each(|s| writeln!(out, "{}", s.line()));
    wrote = wrote.and_then(|()| out.flush());
    wrote.map_err(|e| Error::io("standard output", e))
}

/// Runs `caption`.
pub fn caption(
    session: &Session<'_>,
    args: &CaptionArgs,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    let Some(told) = Told::of(session.manifest)? else {
        return session.need(false, "caption");
    };
    let images = Texts {
        texts: args.images.clone(),
    };
    let json = args.json || images.are_lines();
    let mut teller = Teller::new(session, told, &args.flags, args.new)?;
    images.each(input, &mut |image| {
        let features = teller.see(Path::new(image))?;
        let captions = teller.tell(&features, args.prompt.as_deref())?;
        if !json {
            return tell_plainly(&captions, out);
        }
        texts::write_json(out, &Captions { image, captions })?;
        out.flush().map_err(|e| Error::io("standard output", e))
    })
}

/// Runs `answer` of a model that is told pictures.
pub fn answer(
    session: &Session<'_>,
    args: &AnswerArgs,
    told: Told<'_>,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    if let Some(flag) = args.of_contexts() {
        let what = format!("{flag}: this model answers about pictures: answer IMAGE QUESTION");
        return Err(Error::Usage(what));
    }
    let Some((image, questions)) = args.questions.split_first() else {
        return Err(Error::Usage(
            "answer needs a picture: answer IMAGE QUESTION".into(),
        ));
    };
    let questions = Texts {
        texts: questions.to_vec(),
    };
    let json = args.json || questions.are_lines();
    let mut teller = Teller::new(session, told, &args.flags, args.new)?;
    let features = teller.see(Path::new(image))?;
    questions.each(input, &mut |question| {
        let answers = teller.tell(&features, Some(&format!("Question: {question} Answer:")))?;
        if !json {
            return tell_plainly(&answers, out);
        }
        texts::write_json(out, &Answers { question, answers })?;
        out.flush().map_err(|e| Error::io("standard output", e))
    })
}
