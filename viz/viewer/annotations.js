// @ts-check
// Annotations: their files, which are named after the graph's file and know their graph by its digest.
"use strict";

/** The text of an annotations file. @param {Graph} graph @param {Notes} notes */
function annotationsText(graph, notes) {
  return `${JSON.stringify({ schema_version: 1, ...notes, digest: graph.key }, null, 1)}\n`;
}

/**
 * Notes in the text of an annotations file, and what to say of them.  Throws an Error with the reason
 * if it is invalid, or if it is of another graph and names nothing of this one.
 * @param {Graph} graph
 * @param {string} text
 * @param {string} name
 * @returns {[Notes, string]}
 */
function notesInFile(graph, text, name) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON: expected annotations that were saved from a page.");
  }
  if (value?.schema_version !== 1) {
    throw new Error("This file has no schema_version 1: expected annotations that were saved from a page.");
  }
  const notes = readNotes(value);
  if (!notes) throw new Error("Pins, labels or groups in this file are not in the format of annotations.");
  const [names, missing] = namesIn(graph, notes);
  const here = graph.partial ? "on this page, which has a part of the graph" : "in this graph";
  const absent = missing ? `${counted(missing)} of its ${counted(names)} nodes and features ${missing === 1 ? "is" : "are"} not ${here}` : "";
  const other = isText(value.digest) && value.digest !== graph.key;
  if (other && names && missing === names) throw new Error(`${name} is of another graph: none of its ${counted(names)} nodes and features is ${here}. It was not loaded.`);
  const sentence = other ? `${name} is of another graph: ${absent || `all its ${counted(names)} nodes and features are ${here}`}. It was loaded; undo (u) removes it.` : `Annotations loaded from ${name}${absent && `; ${absent}`}.`;
  return [notes, sentence];
}

/** Number of nodes and features that notes are about, and how many of them a graph lacks. @param {Graph} graph @param {Notes} notes */
function namesIn(graph, notes) {
  const names = new Set([...notes.pins, ...notes.hidden, ...Object.keys(notes.labels), ...notes.groups.flatMap(({ members }) => members)]);
  const features = new Set(graph.names.map(featureKey));
  return [names.size, [...names].filter((name) => !graph.place.has(name) && !features.has(name)).length];
}

/** @param {Viewer} viewer */
async function saveAnnotations(viewer) {
  const { graph } = viewer;
  const notes = adopted(graph, viewer.notes, viewer.state.mine);
  if (notes !== viewer.notes) viewer.dispatch({ type: "load", annotations: notes });
  if (viewer.served) {
    await sendAnnotations(viewer, notes);
    return;
  }
  const name = `${fileName(graph)}.annotations.json`;
  download(name, new Blob([annotationsText(graph, notes)], { type: "application/json" }));
  announce(graph.file
    ? `Saved as ${name}. Put it beside ${graph.file.graph}: headwater reads it there.`
    : `Saved as ${name}, after the prompt, since this page does not know the file of its graph. Beside NAME.safetensors it has to be called NAME.annotations.json: headwater reads it there.`);
}

/** Send notes to the server, which stores them beside the graph. @param {Viewer} viewer @param {Notes} notes */
async function sendAnnotations(viewer, notes) {
  const { graph } = viewer;
  const body = JSON.stringify({ schema_version: 1, ...notes, digest: graph.key, read: notesInPage(graph) });
  const headers = { "content-type": "application/json" };
  const sent = viewer.notes;
  const answer = await fetch(`${location.pathname}/annotations`, { method: "PUT", headers, body }).catch(() => null);
  if (!answer?.ok) {
    announce(answer ? `Not saved: ${(await answer.json()).error}` : "Not saved: the server does not answer.");
    return;
  }
  const more = answer.status !== 204; // the file had changed; both are merged
  const kept = more ? notesFrom(await answer.json()) : notes;
  announce(`Annotations saved next to the graph${more ? ", merged with changes there" : ""}.`);
  if (more && viewer.notes !== sent) return; // changed here meanwhile: the next save adds it
  graph.annotations = kept;
  if (more) viewer.dispatch({ type: "load", annotations: kept });
  viewer.dispatch({ type: "keep", file: kept });
}

/** @param {Viewer} viewer @param {File} file */
async function loadAnnotations(viewer, file) {
  try {
    const [notes, sentence] = notesInFile(viewer.graph, await file.text(), file.name);
    viewer.dispatch({ type: "load", annotations: notes });
    announce(sentence);
  } catch (error) {
    announce(error instanceof Error ? error.message : String(error));
  }
}

/** Name of files that are saved, without a suffix: that of the graph's file, or else words of the prompt and its digest. @param {Graph} graph */
function fileName(graph) {
  if (graph.file) return graph.file.notes.replace(/\.annotations\.json$/, "");
  const words = graph.heading.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["graph"];
  return `${words.slice(0, 6).join("-").slice(0, 60)}-${graph.key.slice(0, 6)}`;
}
